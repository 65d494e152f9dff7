package order_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/service/spectest"
	"example.com/keyline/services/order"
)

// That answers are as the file promises is checked with every request of the tests, in
// rig.do.

func TestOpenAPI_routes(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	file := spectest.Read(order.OpenAPI)
	if diff := cmp.Diff(file.Routes(), slices.Sorted(maps.Keys(r.Routes(r.keys)))); diff != "" {
		t.Errorf("openapi.yaml and the routes differ: %s", diff)
	}
	for _, probe := range []string{"/livez", "/readyz", "/readyz?verbose", "/metrics", "/version", "/openapi.yaml"} {
		r.do("GET", probe, "")
	}
	if got := r.do("GET", "/openapi.yaml", "").Text; got != string(order.OpenAPI) {
		t.Errorf("/openapi.yaml answers %d bytes, want the file", len(got))
	}
}

func TestOpenAPI_examples(t *testing.T) {
	t.Parallel()
	n, errs := spectest.Read(order.OpenAPI).Examples()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n < 15 {
		t.Errorf("only %d examples were found", n)
	}
}
