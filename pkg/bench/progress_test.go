package main

import (
	"context"
	"strings"
	"sync"
	"testing"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	t.Run("many add to it, and it ends once", func(t *testing.T) {
		t.Parallel()
		p := newProgress(100)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { p.add(3) })
		}
		if err := p.wait(t.Context()); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	t.Run("it says how far it came", func(t *testing.T) {
		t.Parallel()
		p := newProgress(10)
		p.add(4)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx); err == nil || !strings.HasPrefix(err.Error(), "4 of 10 done: ") {
			t.Errorf("wait: %v, want 4 of 10 done", err)
		}
	})
}
