package schemas_test

import (
	"strings"
	"testing"

	"example.com/keyline/pkg/codec/compat"
	"example.com/keyline/schemas"
)

// TestCompat is the gate: all versions of an event are compatible with each other in both
// directions (FULL_TRANSITIVE), and nothing was renamed. It is part of promise 9.
func TestCompat(t *testing.T) {
	t.Parallel()
	for _, s := range schemas.Subjects() {
		if err := compat.Check(s.Name, s.Versions); err != nil {
			t.Errorf("%v; a published version stays as it is, put the change right in the newest one", err)
		}
	}
}

func TestCompat_refuses(t *testing.T) {
	t.Parallel()
	placed := schemas.Subjects()[0]
	v3 := strings.Replace(placed.Versions[1], `"default": "EUR", `, "", 1)
	err := compat.Check(placed.Name, append(placed.Versions, v3))
	for _, want := range []string{"shop.order.OrderPlaced", "field currency", "version 1", "version 3", "default"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
