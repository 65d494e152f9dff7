package outbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// A topic that is missing is one thing for the operator to mend, however many keys wait for it.
func TestRelay_holds_back_a_missing_topic_as_a_whole(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test", Window: 10})
	w := &wire{fault: func(window []event.Record) []error {
		errs := make([]error, len(window))
		for i, r := range window {
			if r.Topic == "missing" {
				errs[i] = fmt.Errorf("unknown: %w", event.ErrTopic)
			}
		}
		return errs
	}}
	err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error {
		for i := range 30 {
			if err := o.AppendRaw(ctx, tx, event.Record{Topic: "missing", Key: []byte{byte(i)}}); err != nil {
				return err
			}
		}
		return o.AppendRaw(ctx, tx, event.Record{Topic: "there", Key: []byte("a")})
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, o, w)
	eventually(t, "the other topic flows", func() bool { return len(w.keys()) == 1 })
	held, err := o.Held(t.Context())
	if err != nil || len(held) != 1 || held[0].Topic != "missing" || held[0].Key != nil || !strings.HasPrefix(held[0].Error, "unknown") || time.Since(held[0].Since) > time.Minute {
		t.Errorf("held: %+v, %v", held, err)
	}
	eventually(t, "what flows has gone", func() bool {
		all, flowing, err := o.Stats(t.Context())
		return err == nil && flowing == outbox.Backlog{} && all.Events == 30 && all.Oldest > 0
	})
}
