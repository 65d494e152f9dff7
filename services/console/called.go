package console

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// called puts the program as it was called where a text has a command of it.
func (s *session) called(text string) string {
	return strings.Replace(text, "console ", s.name+" ", 1)
}

// CalledAs is how a program is called again that was started as arg0. What `go run` has built
// is gone by then.
func CalledAs(arg0 string) string {
	if strings.Contains(arg0, "/go-build") {
		return "go run ./services/console/cmd/console"
	}
	return quoted(arg0)
}

// propose says what to type next, not with --json.
func (s *session) propose(what, command string, args ...any) {
	s.say("%s:  %s", what, s.called(fmt.Sprintf(command, args...)))
}

// again is the command as it was typed, with words of its own and with changed flags, each a
// name and a value. What continues a command, or does what it has only shown, is made here,
// so that it loses no flag.
func (s *session) again(words []string, changed ...string) string {
	flags := map[string]string{}
	s.flags.Visit(func(f *flag.Flag) { flags[f.Name] = valueOf(f) })
	for pair := range slices.Chunk(changed, 2) {
		flags[pair[0]] = pair[1]
	}
	line := "console " + s.command.name
	for _, w := range words {
		line += " " + quoted(w)
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		_, isSwitch := s.flags.Lookup(name).Value.(interface{ IsBoolFlag() bool })
		switch value := flags[name]; {
		case isSwitch && value == "true":
			line += " --" + name
		case !isSwitch && value != "":
			line += " --" + name + " " + quoted(value)
		}
	}
	return line
}

// valueOf is a flag's value as people type it.
func valueOf(f *flag.Flag) string {
	if value, ok := f.Value.(flag.Getter); ok {
		if n, ok := value.Get().(float64); ok {
			return strconv.FormatFloat(n, 'f', -1, 64)
		}
	}
	return f.Value.String()
}
