package console

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// command is one command of the command line.
type command struct {
	name     string // one or two words
	args     string // as the help shows them
	short    string
	long     string
	examples []string
	// setup declares the flags and returns what runs once they are read.
	setup func(*flag.FlagSet) func(context.Context, *session, []string) error
}

// session is one run of a command.
type session struct {
	*Console
	mu       sync.Mutex // of err
	out, err io.Writer
	json     bool
	verbose  bool
	name     string // of the program
	command  *command
	flags    *flag.FlagSet
}

// warn tells what does not belong into the answer.
func (s *session) warn(format string, args ...any) { s.note("console: "+format, args...) }

// note writes a line beside the answer. It may be called at any time.
func (s *session) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.err, format+"\n", args...)
}

// say writes a line for people, not with --json.
func (s *session) say(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

// commands are listed as an operator needs them.
func commands() []*command {
	return []*command{
		waitingLs, waitingShow, redriveCommand, dropCommand, lagCommand, tailCommand, outboxCommand, skipCommand, replayCommand, provisionCommand,
	}
}

// Run runs the command line args, without the program's name, and returns its exit code.
func Run(ctx context.Context, cfg Config, args []string, out, errs io.Writer) int {
	kept := &keptError{w: out}
	s := &session{out: kept, err: errs, name: cmp.Or(cfg.Name, "console")}
	err := s.run(ctx, cfg, args)
	if s.Console != nil {
		s.Close()
	}
	if kept.err != nil {
		err = errors.Join(err, kept.err) // what was to be told has not been, or not all of it
	}
	return s.exitCode(ctx, err)
}

// exitCode prints what went wrong, each with what to type next.
func (s *session) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitDone
	}
	code := 0
	for _, one := range flatten(err) {
		code = worse(code, s.tell(ctx, one))
	}
	return code
}

func (s *session) tell(ctx context.Context, err error) (code int) {
	var f *Failure
	switch {
	case errors.As(err, &f):
		if f.Text != "" {
			s.warn("%s", f.Text)
		}
		if f.Next != "" {
			s.note("next: %s", s.called(f.Next))
		}
		return f.code
	case ctx.Err() != nil:
		s.warn("interrupted")
	default:
		s.warn("%s", safe(err.Error(), 500))
	}
	return exitFailed
}

// worse is the code of two failures: that something failed counts more than that nothing was
// found.
func worse(a, b int) int {
	if a == 0 || b == exitUsage || a > exitUsage && b < a {
		return b
	}
	return a
}

func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if _, single := err.(*Failure); single || !errors.As(err, &joined) {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, flatten(one)...)
	}
	return all
}

func (s *session) run(ctx context.Context, cfg Config, args []string) error {
	help := len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0])
	if help {
		args = args[1:]
	}
	if len(args) == 0 {
		s.overview()
		return nil
	}
	c, rest, err := lookUp(args)
	if err != nil {
		if topic := args[0]; isGroup(topic) && (help || len(args) == 1 || strings.HasPrefix(args[1], "-")) {
			s.group(topic)
			return nil
		}
		if help && slices.Equal(args, []string{"json"}) {
			fmt.Fprint(s.out, shapes)
			return nil
		}
		return err
	}
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.BoolVar(&s.json, "json", false, "print JSON")
	set.BoolVar(&s.verbose, "verbose", false, "tell where the addresses come from")
	s.command, s.flags = c, set
	do := c.setup(set)
	if help {
		s.help()
		return nil
	}
	words, err := parse(set, rest)
	if errors.Is(err, flag.ErrHelp) {
		s.help()
		return nil
	}
	if err == nil {
		err = emptyWord(set, words)
	}
	if err != nil {
		return misused(set, err).then("console %s --help", c.name)
	}
	cfg.Slow = func(service string) { s.warn("waiting for %s", service) }
	if s.Console, err = Open(cfg); err != nil {
		return err
	}
	if mixed := s.place.mixed(); mixed != "" {
		s.warn("%s", mixed)
	}
	if s.verbose {
		for _, name := range slices.Sorted(maps.Keys(s.Sources())) {
			s.warn("%s is from %s", name, s.Sources()[name])
		}
	}
	err = do(ctx, s, words)
	var f *Failure
	if errors.As(err, &f) && f.code == exitUsage && f.Next == "" {
		f.Next = "console " + c.name + " --help"
	}
	return err
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

// isSet reports whether a flag was typed.
func (s *session) isSet(name string) (set bool) {
	s.flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// isGroup reports whether a word begins commands of two words.
func isGroup(word string) bool {
	return slices.ContainsFunc(commands(), func(c *command) bool { return strings.HasPrefix(c.name, word+" ") })
}

func lookUp(args []string) (*command, []string, error) {
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c, args[len(words):], nil
		}
	}
	asked := args[0]
	if isGroup(asked) && len(args) > 1 {
		asked += " " + args[1]
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
		if _, last, two := strings.Cut(asked, " "); two && last == c.name {
			return nil, nil, wrong("there is no command %q", safe(asked, 60)).then("console %s", c.name)
		}
	}
	if near := nearest(asked, names); near != "" {
		return nil, nil, wrong("there is no command %q; did you mean %q?", safe(asked, 60), near).then("console %s --help", near)
	}
	if isGroup(args[0]) {
		return nil, nil, wrong("there is no command %q", safe(asked, 60)).then("console %s --help", args[0])
	}
	return nil, nil, wrong("there is no command %q", safe(asked, 60)).then("console --help")
}

// nearest is the name that is meant, if one is near enough.
func nearest(asked string, names []string) (best string) {
	least := max(2, len(asked)/3) + 1
	for _, name := range names {
		d := distance(asked, name)
		if _, last, two := strings.Cut(name, " "); two {
			d = min(d, distance(asked, last))
		}
		if strings.HasPrefix(name, asked) {
			d = min(d, 1)
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is how many letters have to be typed otherwise.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			other := diagonal
			if a[i] != b[j] {
				other++
			}
			diagonal = row[j+1]
			row[j+1] = min(other, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
