// Bench measures what the shared packages cost beside the libraries they stand on, and what whole
// services take beside the same built otherwise, and prints tables:
//
//	B1 codec, B2 trace, B3 publish, B4 consume,
//	B5 effect once, B6 outbox relay, B7 intake of orders,
//	B8 orders settled per second, B9 from an order to its mail,
//	B10 slow effects, B11 keys that wait, B12 start and size, B13 members that come and go.
//
// It is a program and not a set of testing.B functions because a figure of one side alone says
// little on a shared machine: all sides of a piece of work run in one process, in turn, ours
// before and after the others, for several rounds, and the ratio is taken round by round.
// Times are comparable only as such ratios; allocations are comparable between runs.
//
//	go run .                    all of it, saved in results/ and compared with what was saved last
//	go run . -quick             does it still run? one short round, nothing saved
//	go run . -only B1           one part, nothing saved; B1 is not B10
//	go run . -only "B10 slow effects, 20"
//	go run . -only B8 -sides keyline,plain
//
// KAFKA_BROKERS and DATABASE_URL name a real Kafka and PostgreSQL; nobody else must use them
// meanwhile, for what they do is on the account of whoever is measured. Without them the broker is
// an embedded one, databases are files of SQLite, and sides that want PostgreSQL are left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/keyline/pkg/service"
)

func main() {
	service.CollectLess() // all sides, as our services do
	var o options
	flag.BoolVar(&o.quick, "quick", false, "one short round, nothing saved")
	flag.IntVar(&o.rounds, "rounds", whole.rounds, "rounds of each piece of work, at most: what takes long has fewer")
	flag.StringVar(&o.only, "only", "", "number of the works to run, such as B2, or the begin of their names, such as \"B10 slow effects, 20\"; nothing saved")
	flag.StringVar(&o.sides, "sides", "", "begins of the names of the sides to run, such as keyline,watermill; nothing saved")
	flag.DurationVar(&o.open, "open", whole.open, "how long each run of B9 places orders")
	flag.StringVar(&o.profiles, "profiles", "", "folder for a profile of each shop's processor time")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if name, ok := childRole(); ok {
		err = beChild(ctx, name)
	} else {
		flag.Parse()
		if err = o.check(flag.Args()); err == nil {
			err = o.run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	quick    bool
	rounds   int
	only     string
	sides    string
	open     time.Duration
	profiles string
}

func (o options) plan() plan {
	p := whole
	p.rounds, p.open = o.rounds, o.open
	if o.quick {
		p = quick
	}
	return p
}

// check refuses what would measure for half an hour something that nobody has asked for.
func (o options) check(args []string) error {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	part, _, _ := strings.Cut(o.only, " ")
	switch {
	case len(args) > 0:
		return fmt.Errorf("%.40q is no flag; next: go run . -only %s", args[0], names[0])
	case o.rounds < 1:
		return errors.New("-rounds is at least 1")
	case o.only != "" && !slices.Contains(names, part):
		return fmt.Errorf("-only %q is none of %s", o.only, strings.Join(names, ", "))
	}
	return nil
}

// run measures, prints and saves.
func (o options) run(ctx context.Context) error {
	if err := checkSeams(); err != nil {
		return err
	}
	began := time.Now()
	rep := report{Date: began.UTC().Format(time.RFC3339), LoadBefore: load()}
	var err error
	if rep.Machine, err = readMachine(ctx); err != nil {
		return err
	}
	rig, err := newRig(ctx, o.plan())
	if err != nil {
		return err
	}
	rig.profiles = o.profiles
	rep.Rows, err = o.measure(ctx, rig)
	if err := errors.Join(err, rig.close()); err != nil {
		return err
	}
	if len(rep.Rows) == 0 {
		return fmt.Errorf("nothing matches -only %q -sides %q; next: make bench QUICK=1, which names all works and sides", o.only, o.sides)
	}
	rep.LoadAfter, rep.Took, rep.Shops = load(), time.Since(began).Round(time.Second).String(), shopSettings(rep.Rows)
	before, err := lastReport()
	if err != nil {
		return err
	}
	text := rep.text(before)
	fmt.Print(text)
	if o.quick {
		fmt.Println("a trial: each ran for a moment, so that its figures mean nothing; next: .ci/real make bench")
	}
	if o.quick || o.only != "" || o.sides != "" {
		return nil
	}
	return rep.save(text)
}

// parts make their works only when they are asked for: some fill topics first.
var parts = []struct {
	name  string
	works func(context.Context, *rig) ([]work, error)
}{
	{"B1", codecWorks},
	{"B2", traceWorks},
	{"B3", publishWorks},
	{"B4", consumeWorks},
	{"B5", effectWorks},
	{"B6", relayWorks},
	{"B7", intakeWorks},
	{"B8", sagaWorks},
	{"B9", latencyWorks},
	{"B10", slowWorks},
	{"B11", waitingWorks},
	{"B12", startWorks},
	{"B13", memberWorks},
}

func (o options) measure(ctx context.Context, rig *rig) (rows []row, err error) {
	for _, part := range parts {
		if number, _, _ := strings.Cut(o.only, " "); number != "" && number != part.name {
			continue
		}
		began := time.Now()
		works, err := part.works(ctx, rig)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		if err := rig.warmUp(ctx); err != nil {
			return nil, fmt.Errorf("warm the broker up: %w", err)
		}
		for _, w := range works {
			w.sides = chosen(w.sides, o.sides)
			if !strings.HasPrefix(w.name, o.only) || len(w.sides) == 0 {
				continue
			}
			measured, err := rig.plan.measure(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			rows = append(rows, measured...)
			fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(began).Seconds(), w.name)
			began = time.Now() // what is made for a part is on its first work's account
		}
	}
	return rows, nil
}

// chosen are the sides whose names begin with one of a list's; all if it is empty.
func chosen(sides []side, list string) (some []side) {
	for _, s := range sides {
		for name := range strings.SplitSeq(list, ",") {
			if strings.HasPrefix(s.name, name) {
				some = append(some, s)
				break
			}
		}
	}
	return some
}
