package console

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

// wantsJSON reports whether JSON is asked for, also where the other flags are not understood.
func wantsJSON(args []string) bool {
	return slices.Contains(args, "--json") || slices.Contains(args, "-json")
}

// parse reads flags before, between and behind the other words.
func parse(set *flag.FlagSet, args []string) (words []string, err error) {
	for len(args) > 0 {
		if err := set.Parse(args); err != nil {
			return nil, err
		}
		rest := set.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(words, rest...), nil
		}
		if len(rest) == 0 {
			break
		}
		words, args = append(words, rest[0]), rest[1:]
	}
	return words, nil
}

// misused says in our words what the flag package found.
func misused(set *flag.FlagSet, err error) *Failure {
	text := err.Error()
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: -")
	if dashes, bad := strings.CutPrefix(text, "bad flag syntax: "); bad {
		name, _, _ = strings.Cut(strings.TrimLeft(dashes, "-"), "=")
		if set.Lookup(name) != nil {
			return wrong("there is no flag %s; did you mean --%s?", safe(dashes, 40), name)
		}
	}
	if !unknown {
		return wrong("%s%s", safe(strings.ReplaceAll(text, "flag -", "flag --"), 200), expected(set, text))
	}
	name = strings.TrimPrefix(name, "-")
	var names []string
	set.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if near := nearest(name, names); near != "" {
		return wrong("there is no flag --%s; did you mean --%s?", safe(name, 40), near)
	}
	return wrong("there is no flag --%s", safe(name, 40))
}

// expected says what a value of the flag that an error names should be.
func expected(set *flag.FlagSet, text string) string {
	_, name, _ := strings.Cut(text, " for flag -")
	name, _, _ = strings.Cut(name, ":")
	f := set.Lookup(name)
	if f == nil {
		return ""
	}
	if value, ok := f.Value.(flag.Getter); ok {
		switch value.Get().(type) {
		case time.Duration:
			return " (expected: how long, with its unit, such as 5s)"
		case int:
			return " (expected: a whole number)"
		case float64:
			return " (expected: a number)"
		case bool:
			return " (expected: true or false)"
		}
	}
	return ""
}

// emptyWord refuses words and flags without a value: a variable of a script that is not set
// must not make a command take more.
func emptyWord(set *flag.FlagSet, words []string) (err error) {
	if slices.Contains(words, "") {
		err = errors.New("a word is empty")
	}
	set.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" {
			err = fmt.Errorf("flag --%s is empty: give it a value, or leave it out", f.Name)
		}
	})
	return err
}
