// Package compat judges whether all versions of an event can live together: whoever knows
// one version reads records of every other, before and after it.
//
//	err := compat.Check("orders-shop.order.OrderPlaced", []string{v1, v2})
//
// # Why rules of our own beside Avro's
//
// Context: hamba/avro judges by Avro's schema resolution, in both directions between every two
// versions, which registries call FULL_TRANSITIVE; it compares names without their
// namespace, remembers verdicts by a form of the schema that has no defaults, and knows
// nothing of meaning. Decision: twmb/avro, which moves the bytes at run time, judges as
// well, and a walk of our own refuses what resolution lets pass: renamed things, another
// logical type, another default, an enum without a default symbol. It runs first, because it
// knows the field. Cost: some changes that Avro allows are refused. Services never link
// this package; hamba stays out of their binaries.
package compat

import (
	"fmt"

	twmb "github.com/twmb/avro"

	"github.com/hamba/avro/v2"
)

// Check returns nil if every two of the versions are compatible in both directions, and each
// follows the rules of this package. Versions are schemas as JSON, oldest first, counted
// from 1. The error names the event, the field, the rule and both versions; name is how it
// calls the event. It is safe for concurrent use.
func Check(name string, versions []string) error {
	parsed := make([]version, len(versions))
	for i, text := range versions {
		var err error
		if parsed[i], err = parse(i+1, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for i, newer := range parsed {
		for _, older := range parsed[:i] {
			if err := check(older, newer); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

type version struct {
	number int
	hamba  avro.Schema
	twmb   *twmb.Schema
}

// parse reads a schema with both libraries and checks what concerns one version alone.
func parse(number int, text string) (version, error) {
	// Every version needs a cache of its own: they define the same names.
	h, err := avro.ParseWithCache(text, "", &avro.SchemaCache{})
	if err != nil {
		return version{}, fmt.Errorf("version %d is not an Avro schema: %w", number, err)
	}
	t, err := twmb.Parse(text)
	if err != nil {
		return version{}, fmt.Errorf("version %d is not an Avro schema: %w", number, err)
	}
	if p := (&linter{seen: make(map[string]bool)}).check("", h); p != nil {
		return version{}, fmt.Errorf("version %d: %w", number, p)
	}
	return version{number, h, t}, nil
}

// check compares two versions.
func check(older, newer version) error {
	d := differ{adjacent: newer.number == older.number+1, seen: make(map[string]bool)}
	if p := d.check("", older.hamba, newer.hamba); p != nil {
		return fmt.Errorf("version %d to version %d: %w", older.number, newer.number, p)
	}
	if err := resolves(older, newer); err != nil {
		return err
	}
	return resolves(newer, older)
}

// resolves asks both libraries whether a reader of one version reads what the other wrote.
func resolves(writer, reader version) error {
	// A new judge each time: it remembers verdicts by fingerprints, which leave out defaults.
	err := avro.NewSchemaCompatibility().Compatible(reader.hamba, writer.hamba)
	if err == nil {
		err = twmb.CheckCompatibility(writer.twmb, reader.twmb)
	}
	if err != nil {
		return fmt.Errorf("version %d cannot read version %d: %w (rule: Avro schema resolution)", reader.number, writer.number, err)
	}
	return nil
}

// problem is what is wrong with a field and the rule that says so.
type problem struct {
	path string // "lines.sku"; empty for the event itself
	what string
	rule string
}

func (p *problem) Error() string {
	where := "the event"
	if p.path != "" {
		where = "field " + p.path
	}
	return fmt.Sprintf("%s: %s (rule: %s)", where, p.what, p.rule)
}

// join is the path of a field of the record at path.
func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// deref returns the type itself for a reference to a named one.
func deref(s avro.Schema) avro.Schema {
	if ref, ok := s.(*avro.RefSchema); ok {
		return ref.Schema()
	}
	return s
}
