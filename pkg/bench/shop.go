package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// shopKind is one way to build the shop of B8 and B9. Each runs in a process of its own, so that
// what its clients and the mail server cost is not on its account.
type shopKind struct {
	name       string
	partitions int // of the topics that are made for it; 0: it has topics of its own
	// settings are what a reader of its figures has to know.
	settings string
	// serve runs it until ctx ends; opened is called once it takes orders.
	serve func(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error
}

// ours is the shop whose every order is checked; it is the one that runs on SQLite as well.
func (k shopKind) ours() bool { return k.partitions == 0 }

var shopKinds = []shopKind{
	{"keyline", 0, "as deployed, but that orders go straight to the order service; 1 % of the traces recorded, none exported", serveKeyline},
	{"plain franz-go", partitions, "no outbox, no inbox, no idempotency key; produces after the commit without waiting; a goroutine per partition", servePlain},
	{"watermill", watermillPartitions, fmt.Sprintf("watermill-kafka and watermill-sql: outbox forwarders (default adapter, %d per service, polling every %s, %d rows at a time), inbox rows, %d partitions",
		watermillShards, watermillPoll, watermillBatch, watermillPartitions), serveWatermill},
}

// findShop returns the kind of that name.
func findShop(name string) (shopKind, error) {
	i := slices.IndexFunc(shopKinds, func(k shopKind) bool { return k.name == name })
	if i < 0 {
		return shopKind{}, fmt.Errorf("no shop is called %q", name)
	}
	return shopKinds[i], nil
}

// shopNames splits a list with commas.
func shopNames(list string) (names []string, err error) {
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		if _, err := findShop(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// shopSettings are those of the shops in a report; none if it is about other things.
func shopSettings(rows []row) map[string]string {
	var settings map[string]string
	for _, w := range rows {
		if w.Ours.Sagas == nil {
			continue
		}
		if settings == nil {
			settings = map[string]string{}
		}
		for _, k := range shopKinds {
			if k.ours() || k.name == w.Peer {
				settings[k.name] = k.settings
			}
		}
	}
	return settings
}

// shopConfig is what a shop's process is told, as the first line of its input.
type shopConfig struct {
	Broker   string
	Database string
	SMTP     string
	// Prefix begins the names of its groups, and of its topics where they are made for it.
	Prefix string
	// Profile is the file for a profile of the processor; empty for none.
	Profile string
}

// shopAddrs is what it answers: where orders are placed and goods come in.
type shopAddrs struct{ Orders, Stock string }

// serveShop is the process of a shop. It ends with its input.
func serveShop(ctx context.Context, name string) error {
	kind, err := findShop(name)
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read what the shop is told: %w", err)
	}
	var cfg shopConfig
	if err := json.Unmarshal(line, &cfg); err != nil {
		return fmt.Errorf("read what the shop is told: %w", err)
	}
	stop, err := profile(cfg.Profile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in) // to its end, whatever that is
		cancel()
	}()
	err = kind.serve(ctx, cfg, func(at shopAddrs) { _ = json.NewEncoder(os.Stdout).Encode(at) }) // nobody reads it if the parent has gone
	return errors.Join(err, stop())
}

// profile writes where the processor's time goes, until it is stopped.
func profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// shop is a shop's process, as its parent sees it.
type shop struct {
	shopAddrs
	prefix string // of its groups
	pid    int
	said   tail           // on its standard error
	undo   []func() error // the last first
}

// stopPatience is how long a shop may take to stop.
const stopPatience = 30 * time.Second

// tail keeps the end of what is written. Its writer is one goroutine, which has ended when it is
// read.
type tail []byte

const tailBytes = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-tailBytes):]
	return len(p), nil
}

// startShop starts a shop with a database and consumer groups of its own, which sends its mails
// to smtp. stop ends it and removes what was made for it.
func (r *rig) startShop(ctx context.Context, kind shopKind, smtp string) (_ *shop, err error) {
	r.shops++
	cfg := shopConfig{Broker: r.broker.addr, SMTP: smtp, Prefix: fmt.Sprintf("shop-%d-%d", os.Getpid(), r.shops)}
	if r.profiles != "" {
		cfg.Profile = filepath.Join(r.profiles, fmt.Sprintf("%s-%d.prof", kind.name, r.shops))
	}
	s := &shop{prefix: cfg.Prefix}
	defer func() {
		if err != nil {
			err = s.explain(errors.Join(err, s.stop()))
		}
	}()
	database, drop, err := r.newDatabase(ctx)
	if err != nil {
		return nil, err
	}
	cfg.Database, s.undo = database, append(s.undo, drop)
	tidy, err := r.broker.prepare(ctx, kind, cfg.Prefix)
	s.undo = append(s.undo, tidy)
	if err != nil {
		return nil, err
	}
	return s, s.start(kind.name, cfg)
}

func (s *shop) start(name string, cfg shopConfig) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-shop", name)
	cmd.Stderr = &s.said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid = cmd.Process.Pid
	s.undo = append(s.undo, func() error {
		defer time.AfterFunc(stopPatience, func() { _ = cmd.Process.Kill() }).Stop() // it has ended, or Wait tells
		return errors.Join(in.Close(), cmd.Wait())
	})
	if err := json.NewEncoder(in).Encode(cfg); err != nil {
		return fmt.Errorf("tell the shop: %w", err)
	}
	if err := json.NewDecoder(out).Decode(&s.shopAddrs); err != nil {
		return fmt.Errorf("the shop's process: %w", err)
	}
	return nil
}

// explain adds what a shop that has stopped has said, to an error that may be its fault.
func (s *shop) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || len(s.said) == 0 {
		return err
	}
	return fmt.Errorf("%w; at the end it said:\n%s", err, s.said)
}

// stop may be called again.
func (s *shop) stop() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i]())
	}
	s.undo = nil
	return errors.Join(errs...)
}
