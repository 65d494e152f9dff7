package eventtest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
)

// complaints keeps what a test is told.
type complaints struct {
	testing.TB
	all []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func TestParts_WantTopics(t *testing.T) {
	t.Parallel()
	heard := &complaints{TB: t}
	p := eventtest.NewParts(t, contract, eventtest.PartsConfig{Service: "shelf", Payloads: []event.Payload{Moved{}, Counted{}}})
	p.TB = heard
	inbox.Handle(p.Inbox, func(context.Context, *db.Tx, event.Event[Moved]) error { return nil })
	for _, tt := range []struct {
		what                string
		publishes, consumes []string
		want                []string
	}{
		{"as declared", []string{"counts"}, []string{"moves"}, nil},
		{"a handler that is not declared", []string{"counts"}, nil, []string{"shelf consumes [moves], declared is []"}},
		{"a payload that is not declared", nil, []string{"moves"}, []string{"shelf publishes to [counts], declared is []"}},
		{"a declared topic without a handler", []string{"counts"}, []string{"moves", "doors"}, []string{"shelf consumes [moves], declared is [doors moves]"}},
	} {
		heard.all = nil
		p.WantTopics(tt.publishes, tt.consumes)
		if diff := cmp.Diff(tt.want, heard.all); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
	}
}
