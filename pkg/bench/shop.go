package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
)

// shopKind is one way to build the shop of B8 and B9. Each runs in a process of its own, so that
// what its clients and the mail server cost is not on its account.
type shopKind struct {
	name       string
	partitions int // of the topics that are made for it; 0: it has topics of its own
	fewer      int // how many times less it has to do where all orders come at once
	// settings are what a reader of its figures has to know.
	settings string
	// serve runs it until ctx ends; opened is called once it takes orders.
	serve func(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error
}

// ours is the shop whose every order is checked; it is the one that runs on SQLite as well.
func (k shopKind) ours() bool { return k.partitions == 0 }

var shopKinds = []shopKind{
	{"keyline", 0, 1, "as deployed, but that orders go straight to the order service; 1 % of the traces recorded, none exported", serveKeyline},
	{"plain franz-go", partitions, 1, "no outbox, no inbox, no idempotency key; produces after the commit without waiting; a goroutine per partition", servePlain},
	{"watermill", watermillPartitions, 4, fmt.Sprintf("watermill-kafka and watermill-sql: outbox forwarders (default adapter, %d per service, polling every %s, %d rows at a time), inbox rows, %d partitions",
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

// shopSettings are those of the shops in a report; none if it is about other things.
func shopSettings(rows []row) map[string]string {
	var settings map[string]string
	for _, w := range rows {
		if part, _, _ := strings.Cut(w.Work, " "); part != "B8" && part != "B9" {
			continue
		}
		if settings == nil {
			settings = map[string]string{}
		}
		for _, k := range shopKinds {
			if k.name == w.Side || k.name == w.Peer && !w.LeftOut {
				settings[k.name] = k.settings
			}
		}
	}
	return settings
}

// shopConfig is what a shop's process is told.
type shopConfig struct {
	Kind     string
	Broker   string
	Database string
	SMTP     string
	// Prefix begins the names of its groups, and of its topics where they are made for it.
	Prefix string
	// Profile is the file for a profile of the processor; empty for none.
	Profile string
}

// shopAddrs is what it says: where orders are placed and goods come in.
type shopAddrs struct{ Orders, Stock string }

// serveShop is the process of a shop.
func serveShop(ctx context.Context, cfg shopConfig, say func(any) error) error {
	kind, err := findShop(cfg.Kind)
	if err != nil {
		return err
	}
	stop, err := profile(cfg.Profile)
	if err != nil {
		return err
	}
	err = kind.serve(ctx, cfg, func(at shopAddrs) { _ = say(at) }) // nobody reads it if the parent has gone
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
	*child
	prefix string         // of its groups
	undo   []func() error // the last first
}

// newPrefix begins the names of a shop's groups.
func (r *rig) newPrefix() string {
	r.shops++
	return fmt.Sprintf("shop-%d-%d", os.Getpid(), r.shops)
}

// startShop starts a shop with a database and consumer groups of its own, which sends its mails
// to smtp. stop ends it and removes what was made for it.
func (r *rig) startShop(ctx context.Context, kind shopKind, smtp string) (_ *shop, err error) {
	cfg := shopConfig{Kind: kind.name, Broker: r.broker.addr, SMTP: smtp, Prefix: r.newPrefix()}
	if r.profiles != "" {
		cfg.Profile = filepath.Join(r.profiles, fmt.Sprintf("%s-%d.prof", kind.name, r.shops))
	}
	s := &shop{prefix: cfg.Prefix}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
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
	if s.child, s.shopAddrs, err = spawnServer[shopAddrs]("shop", cfg); err != nil {
		return nil, err
	}
	s.undo = append(s.undo, s.end)
	return s, nil
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
