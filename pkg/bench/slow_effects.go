package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// effects are what the events of a run do, and watch the order of each key.
type effects struct {
	*progress
	waits []time.Duration

	mu       sync.Mutex
	keys     map[string]*keyOrder
	disorder int
}

// keyOrder is how far a key is.
type keyOrder struct {
	last  int
	atOne bool // one of its events is at work
}

func newEffects(waits []time.Duration, want int) *effects {
	return &effects{progress: newProgress(want), waits: waits, keys: map[string]*keyOrder{}}
}

func (e *effects) run(ctx context.Context, key, id string) error {
	number, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	k := e.begin(key, number)
	wait := time.NewTimer(e.waits[number])
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	e.mu.Lock()
	k.atOne = false
	e.mu.Unlock()
	e.add(1)
	return nil
}

// begin notes an event that is not the next of its key, is one that has been, or begins while
// another one of the key is at work.
func (e *effects) begin(key string, number int) *keyOrder {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.keys[key]
	if k == nil {
		k = &keyOrder{last: -1}
		e.keys[key] = k
	}
	if k.atOne || number <= k.last {
		e.disorder++
	}
	k.last, k.atOne = number, true
	return k
}

// verdict is an error if not every event had its effect once and in the order of its key.
func (e *effects) verdict(n int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ended := e.seen.Load(); e.disorder > 0 || ended != int64(n) {
		return fmt.Errorf("%d effects of %d events, %d of them again or out of order", ended, n, e.disorder)
	}
	return nil
}
