// Package compat judges whether all versions of an event can live together: whoever knows
// one version reads records of every other, before and after it.
//
//	err := compat.Check("orders-shop.order.OrderPlaced", []string{v1, v2})
//
// # Why rules of our own beside Avro's
//
// Context: twmb/avro, which moves the bytes at run time, judges by Avro's schema resolution, which
// registries call FULL_TRANSITIVE when it is asked in both directions between every two versions;
// it knows nothing of meaning. Decision: a walk of our own refuses what resolution lets pass:
// renamed things, another logical type, another default, an enum without a default symbol. It runs
// first, because it knows the field. hamba/avro is asked as well, but by the tests of schemas: it
// would make the shop's program a sixth larger. Cost: some changes that Avro allows are refused.
// Services never link this package; the embedded registry does.
package compat

import (
	"fmt"

	"github.com/twmb/avro"
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
	schema *avro.Schema
	tree   *node
}

// parse reads a schema and checks what concerns one version alone.
func parse(number int, text string) (version, error) {
	v := version{number: number}
	var err error
	if v.schema, err = avro.Parse(text); err == nil {
		v.tree, err = newTree(v.schema.Root())
	}
	if err != nil {
		return version{}, fmt.Errorf("version %d is not an Avro schema: %w", number, err)
	}
	if p := (&linter{seen: make(map[*node]bool)}).check("", v.tree); p != nil {
		return version{}, fmt.Errorf("version %d: %w", number, p)
	}
	return v, nil
}

// check compares two versions.
func check(older, newer version) error {
	d := differ{adjacent: newer.number == older.number+1, seen: make(map[string]bool)}
	if p := d.check("", older.tree, newer.tree); p != nil {
		return fmt.Errorf("version %d to version %d: %w", older.number, newer.number, p)
	}
	if err := resolves(older, newer); err != nil {
		return err
	}
	return resolves(newer, older)
}

// resolves asks whether a reader of one version reads what the other wrote.
func resolves(writer, reader version) error {
	if err := avro.CheckCompatibility(writer.schema, reader.schema); err != nil {
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
