// Bench measures what the shared packages cost beside the libraries they stand on, and prints
// a table: B1 codec, B2 trace, B3 publish, B4 consume; and what a whole shop of three services takes
// beside the same shop built otherwise: B8 orders settled per second, B9 from an order to its mail.
//
// It is a program and not a set of testing.B functions because a figure of one side alone says
// little on a shared machine: all sides of a piece of work run in one process, in turn, ours
// before and after the others, for several rounds, and the ratio is taken round by round.
// Times are comparable only as such ratios; allocations are comparable between runs.
//
//	go run .            all of it, saved in results/ and compared with what was saved last
//	go run . -quick     does it still run? one short round, nothing saved
//	go run . -only B2   one part, nothing saved
//
// KAFKA_BROKERS and DATABASE_URL name a real Kafka and PostgreSQL; nobody else must use them
// meanwhile, for what they do is on the account of whoever is measured. Without them the broker is
// an embedded one, databases are files of SQLite, and of the shops only ours runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	var o options
	shop := flag.String("shop", "", "be a shop of another run (used by the program itself)")
	broker := flag.Bool("broker", false, "be the broker of another run (used by the program itself)")
	flag.BoolVar(&o.quick, "quick", false, "one short round, nothing saved")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each piece of work")
	flag.StringVar(&o.only, "only", "", "begin of the names of the works to run, such as B2; nothing saved")
	flag.StringVar(&o.shops, "shops", "", "names of the shops of B8 and B9, such as keyline,watermill; nothing saved")
	flag.DurationVar(&o.open, "open", time.Minute, "how long each run of B9 places orders")
	flag.StringVar(&o.profiles, "profiles", "", "folder for a profile of each shop's processor time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run := o.run
	switch {
	case *broker:
		run = serveBroker
	case *shop != "":
		run = func(ctx context.Context) error { return serveShop(ctx, *shop) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	quick    bool
	rounds   int
	only     string
	open     time.Duration
	shops    string
	profiles string
}

// run measures, prints and saves.
func (o options) run(ctx context.Context) error {
	if o.rounds < 1 {
		return errors.New("-rounds is at least 1")
	}
	if err := checkSeams(); err != nil {
		return err
	}
	p := plan{rounds: o.rounds, span: 100 * time.Millisecond, produced: 100_000, consumed: 200_000, sagas: 3000, warm: 300, open: o.open}
	if o.quick {
		p = plan{rounds: 1, span: time.Millisecond, produced: 5_000, consumed: 5_000, sagas: 200, warm: 50, open: time.Second}
	}
	rep := report{Date: time.Now().UTC().Format(time.RFC3339), LoadBefore: load()}
	var err error
	if rep.Machine, err = readMachine(ctx); err != nil {
		return err
	}
	rig, err := newRig(ctx, p)
	if err != nil {
		return err
	}
	rig.profiles = o.profiles
	if rig.only, err = shopNames(o.shops); err != nil {
		return errors.Join(err, rig.close())
	}
	rep.Rows, err = o.measure(ctx, rig)
	if err := errors.Join(err, rig.close()); err != nil {
		return err
	}
	rep.LoadAfter, rep.Shops = load(), shopSettings(rep.Rows)
	before, err := lastReport()
	if err != nil {
		return err
	}
	text := rep.text(before)
	fmt.Print(text)
	if o.quick || o.only != "" || o.shops != "" {
		return nil
	}
	return rep.save(text)
}

// parts make their works only when they are asked for: some fill topics first.
var parts = []struct {
	name  string
	works func(context.Context, *rig) ([]work, error)
}{{"B1", codecWorks}, {"B2", traceWorks}, {"B3", publishWorks}, {"B4", consumeWorks}, {"B8", sagaWorks}, {"B9", latencyWorks}}

func (o options) measure(ctx context.Context, rig *rig) (rows []row, err error) {
	for _, part := range parts {
		if !strings.HasPrefix(o.only, part.name) && !strings.HasPrefix(part.name, o.only) {
			continue
		}
		works, err := part.works(ctx, rig)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		for _, w := range works {
			if !strings.HasPrefix(w.name, o.only) {
				continue
			}
			fmt.Fprintln(os.Stderr, w.name)
			measured, err := rig.plan.measure(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			rows = append(rows, measured...)
		}
	}
	return rows, nil
}
