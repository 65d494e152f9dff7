package schemas_test

import (
	"strings"
	"testing"

	"github.com/hamba/avro/v2"

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

// TestCompat_elsewhere asks an implementation of Avro that has nothing to do with ours.
func TestCompat_elsewhere(t *testing.T) {
	t.Parallel()
	for _, s := range schemas.Subjects() {
		var versions []avro.Schema
		for _, text := range s.Versions {
			// A cache of its own: versions of one event define the same names.
			schema, err := avro.ParseWithCache(text, "", &avro.SchemaCache{})
			if err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
			versions = append(versions, schema)
		}
		for w, writer := range versions {
			for r, reader := range versions {
				// A new judge each time: it remembers verdicts by fingerprints, which leave out defaults.
				if err := avro.NewSchemaCompatibility().Compatible(reader, writer); err != nil {
					t.Errorf("%s: version %d cannot read version %d: %v", s.Name, r+1, w+1, err)
				}
			}
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
