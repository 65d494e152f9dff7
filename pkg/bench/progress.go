package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// progress is closed once as much has been done as was wanted.
type progress struct {
	seen atomic.Int64
	want int64
	done chan struct{}
}

func newProgress(want int) *progress { return &progress{want: int64(want), done: make(chan struct{})} }

// add may be called by several goroutines.
func (p *progress) add(n int) {
	if total := p.seen.Add(int64(n)); total >= p.want && total-int64(n) < p.want {
		close(p.done)
	}
}

// wait fails if ctx ends before.
func (p *progress) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d of %d done: %w", p.seen.Load(), p.want, ctx.Err())
	}
}

// patience is how long one run may take.
const patience = 2 * time.Minute

// runUntil runs parts of a service until the work is done, and ends them.
func runUntil(ctx context.Context, w *watch, done func(context.Context) error, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	w.start()
	for _, run := range parts {
		group.Go(func() error {
			if err := run(ctx); err != nil || ctx.Err() != nil {
				return err
			}
			return errors.New("stopped early")
		})
	}
	err := done(ctx)
	if err == nil {
		w.stop()
	}
	cancel()
	return errors.Join(err, group.Wait())
}
