package console

import (
	"errors"
	"slices"
	"strings"

	"example.com/keyline/pkg/codec"
)

// What the filters of waiting events choose from.
var (
	states  = []string{"dead", "unavailable", "retrying", "running", "behind", "set aside"}
	reasons = []string{"permanent", "exhausted", "undecodable", "unknown-schema"}
)

// choice is a flag with one of a few values.
type choice struct {
	value *string
	of    []string
}

// String is the value; the flag package asks a zero one, too.
func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Set(text string) error {
	if !slices.Contains(c.of, text) {
		return errors.New("it is one of " + strings.Join(c.of, ", "))
	}
	*c.value = text
	return nil
}

// typeName is a flag with an event's type. The last part of the name of one that is known
// here stands for it.
type typeName string

func (t *typeName) String() string { return string(*t) }

func (t *typeName) Set(text string) error {
	*t = typeName(text)
	for _, full := range types() {
		if text != "" && matches(full, text) {
			*t = typeName(full)
		}
	}
	return nil
}

// types are the full names of all events.
func types() (names []string) {
	for _, p := range payloads() {
		names = append(names, codec.FullName(p.Schema()))
	}
	return names
}

// unknownType adds to an answer that is empty which types there are, if the one that was
// asked for is none of them.
func unknownType(f *Failure, typ string) *Failure {
	if typ != "" && !slices.Contains(types(), typ) {
		f.Text += "; known types are " + strings.Join(types(), ", ")
	}
	return f
}
