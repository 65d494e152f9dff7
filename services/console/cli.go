package console

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
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
	narrow   bool   // out is a terminal's
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

// text is foreign text on one line. Only where people read it is it cut.
func (s *session) text(foreign string, most int) string {
	if s.narrow {
		return safe(foreign, most)
	}
	return safe(foreign, math.MaxInt)
}

// isTerminal reports whether somebody looks at what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// commands are listed as an operator needs them.
func commands() []*command {
	return []*command{
		waitingLs, waitingShow, redriveCommand, dropCommand, lagCommand, tailCommand, outboxCommand, skipCommand, replayCommand, provisionCommand,
		aclsCommand,
	}
}

// Run runs the command line args, without the program's name, and returns its exit code.
func Run(ctx context.Context, cfg Config, args []string, out, errs io.Writer) int {
	kept := &keptError{w: out}
	s := &session{out: kept, err: errs, name: cmp.Or(cfg.Name, "console"), narrow: isTerminal(out)}
	s.json = wantsJSON(args)
	err := s.run(ctx, cfg, args)
	if s.Console != nil {
		s.Close()
	}
	if s.json && err != nil && !kept.begun {
		err = errors.Join(err, s.answerOnly(err))
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
		s.warn("%s", s.text(err.Error(), 500))
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
		s.json = wantsJSON(args)
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
