// Mutants shows that the tests have teeth: it takes out of the code, one at a time, what the
// promises rest on, and names the tests that notice. A mutation that no test notices is a
// missing test.
//
//	go run ./services/all/mutants                 # all of them
//	go run ./services/all/mutants -run claim      # those whose names match
//	go run ./services/all/mutants -e2e -run inbox # and what the end-to-end tests say
//	go run ./services/all/mutants -sim 100        # and how many seeds of the simulation notice
//
// The tree is never touched: the go command compiles the changed text by way of an overlay. A
// mutation whose text is not in its file exactly once, or which does not compile, is an error,
// so that the table cannot go stale. A test that fails without any mutation catches nothing.
//
// A run that hangs until its timeout counts as caught only by tests that have failed before:
// nobody learns from a timeout what is broken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	missed, err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	case missed > 0:
		os.Exit(1)
	}
}

// run does what the arguments say and returns how many mutations no test has caught.
func run(ctx context.Context, args []string, out io.Writer) (missed int, err error) {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	name := flags.String("run", "", "only the mutations whose names match this `regexp`")
	list := flags.Bool("list", false, "tell what would be mutated, and run nothing")
	endToEnd := flags.Bool("e2e", false, "run the tests of services/all too, which takes a minute or two each")
	seeds := flags.Int("sim", 0, "how many seeds of the simulation to run too")
	timeout := flags.Duration("timeout", 3*time.Minute, "of one run of the tests")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	which, err := regexp.Compile(*name)
	if err != nil {
		return 0, err
	}
	root, err := moduleRoot()
	if err != nil {
		return 0, err
	}
	c := checker{root: root, timeout: *timeout, endToEnd: *endToEnd, seeds: *seeds, failing: map[string]map[string]bool{}}
	if c.work, err = os.MkdirTemp("", "mutants-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(c.work)
	var tally tally
	for _, m := range table() {
		switch {
		case !which.MatchString(m.name):
			continue
		case *list:
			fmt.Fprintf(out, "%-28s %s\n", m.name, m)
		case m.postgres && os.Getenv("DATABASE_URL") == "":
			fmt.Fprintf(out, "%-28s not run: it needs a PostgreSQL in DATABASE_URL\n", m.name)
			tally.skipped++
		default:
			fmt.Fprintf(out, "%-28s %s\n", m.name, m)
			if err := c.check(ctx, m, &tally, out); ctx.Err() != nil {
				return tally.missed, ctx.Err()
			} else if err != nil {
				fmt.Fprintf(out, "  NOT TRIED: %v\n", err)
				tally.broken++
			}
		}
		tally.all++
	}
	if tally.all == 0 {
		return 0, fmt.Errorf("no mutation matches %q; -list tells which there are", *name)
	}
	if *list {
		return 0, nil
	}
	fmt.Fprintln(out, tally)
	if tally.broken > 0 {
		return tally.missed, errors.New("the table does not fit the code any more: mend the mutations that were not tried")
	}
	return tally.missed, nil
}

// tally counts what came of the mutations.
type tally struct{ all, missed, skipped, broken int }

func (t tally) String() string {
	return fmt.Sprintf("%d mutations: %d caught, %d caught by nothing, %d not run for want of PostgreSQL, %d errors",
		t.all, t.all-t.missed-t.skipped-t.broken, t.missed, t.skipped, t.broken)
}

func moduleRoot() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(mod))
	if err != nil || file == "" || file == os.DevNull {
		return "", errors.New("run it inside the repository")
	}
	return filepath.Dir(file), nil
}

// check runs the tests against one mutation and tells what they say.
func (c *checker) check(ctx context.Context, m mutation, t *tally, out io.Writer) error {
	o, err := c.outcome(ctx, m, m.tests)
	if err != nil {
		return err
	}
	if len(o.failed) == 0 {
		t.missed++
	}
	tell(out, "caught by", o)
	if c.endToEnd {
		if o, err = c.outcome(ctx, m, []string{"services/all"}); err != nil {
			return err
		}
		tell(out, "end to end", o)
	}
	if c.seeds > 0 && !m.postgres {
		said, err := c.simulate(ctx, m)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "  simulation:", said)
	}
	return nil
}

// maxShown is how many tests are named of those that catch a mutation.
const maxShown = 8

func tell(out io.Writer, label string, o outcome) {
	first := fmt.Sprintf("  %s %d in %.0fs", label, len(o.failed), o.took.Seconds())
	if len(o.failed) == 0 {
		first = fmt.Sprintf("  %s NOTHING in %.0fs", label, o.took.Seconds())
	}
	for _, note := range o.notes {
		first += "; " + note
	}
	fmt.Fprintln(out, first)
	for i, test := range o.failed {
		if i == maxShown {
			fmt.Fprintf(out, "    and %d more\n", len(o.failed)-maxShown)
			break
		}
		fmt.Fprintln(out, "   ", test)
	}
}
