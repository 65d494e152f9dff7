package db_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/db"
)

// callers come for five seconds to groups of which each takes 2 ms.
type callers struct {
	group *db.GroupCommit[int]

	mu     sync.Mutex
	groups int
	took   []time.Duration
}

const comeFor = 5 * time.Second

func newCallers(linger time.Duration) *callers {
	c := &callers{}
	c.group = db.NewGroupCommit(linger, 250, itself, func(ctx context.Context, _ []int) error {
		c.mu.Lock()
		c.groups++
		c.mu.Unlock()
		return pause(ctx, 2*time.Millisecond)
	})
	return c
}

// come has one of them come.
func (c *callers) come(ctx context.Context) {
	begun := time.Now()
	_ = c.group.Do(ctx, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, time.Since(begun))
}

// inALoop has callers come who have their answers before they come again, each after a time of its own.
func (c *callers) inALoop(ctx context.Context, think []func(*rand.Rand) time.Duration) {
	var wg sync.WaitGroup
	end := time.Now().Add(comeFor)
	for i, think := range think {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for time.Now().Before(end) {
				c.come(ctx)
				_ = pause(ctx, think(r))
			}
		})
	}
	wg.Wait()
}

// atARate has callers come at a rate, at random, however long the others take.
func (c *callers) atARate(ctx context.Context, perSecond float64) {
	var wg sync.WaitGroup
	r := rand.New(rand.NewPCG(1, 2))
	for end := time.Now().Add(comeFor); time.Now().Before(end); {
		_ = pause(ctx, time.Duration(r.ExpFloat64()/perSecond*float64(time.Second)))
		wg.Go(func() { c.come(ctx) })
	}
	wg.Wait()
}

func between(from, to time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return from + time.Duration(r.Int64N(int64(to-from))) }
}

// To wait for who waits for an answer only makes everybody slower.
func TestGroupCommit_callers_who_wait_for_their_answers_are_not_slowed_down(t *testing.T) {
	t.Parallel()
	quick, slow := between(100*time.Microsecond, 300*time.Microsecond), between(4*time.Millisecond, 5*time.Millisecond)
	mixed := between(100*time.Microsecond, 4*time.Millisecond)
	for name, think := range map[string][]func(*rand.Rand) time.Duration{
		"one":                        {quick},
		"two":                        {quick, quick},
		"two, one of whom is slower": {quick, slow},
		"eight in step":              slices.Repeat([]func(*rand.Rand) time.Duration{quick}, 8),
		"seven, and a slower one":    append(slices.Repeat([]func(*rand.Rand) time.Duration{quick}, 7), slow),
		"three out of step":          {mixed, mixed, mixed},
		"sixteen out of step":        slices.Repeat([]func(*rand.Rand) time.Duration{mixed}, 16),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				with, without := newCallers(10*time.Millisecond), newCallers(0)
				with.inALoop(t.Context(), think)
				without.inALoop(t.Context(), think)
				t.Logf("%d and without waits %d calls", len(with.took), len(without.took))
				if 10*len(with.took) < 9*len(without.took) {
					t.Errorf("%d calls, %d without waits", len(with.took), len(without.took))
				}
			})
		})
	}
}

// At a steady rate groups are fewer, and nobody waits for longer than linger and a group before his own.
func TestGroupCommit_at_a_rate_groups_are_fewer(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{500, 1000, 2000} {
		synctest.Test(t, func(t *testing.T) {
			with, without := newCallers(10*time.Millisecond), newCallers(0)
			with.atARate(t.Context(), perSecond)
			without.atARate(t.Context(), perSecond)
			slices.Sort(with.took)
			longest := with.took[len(with.took)-1]
			t.Logf("at %.0f/s %d groups and without waits %d; half took at most %v, the longest %v", perSecond, with.groups, without.groups, with.took[len(with.took)/2], longest)
			if 10*with.groups > 6*without.groups {
				t.Errorf("at %.0f/s %d groups, %d without waits", perSecond, with.groups, without.groups)
			}
			if longest > 14*time.Millisecond {
				t.Errorf("at %.0f/s one took %v", perSecond, longest)
			}
		})
	}
}

// What was worth waiting for at a steady rate is found not to be when others come, who wait for their answers.
func TestGroupCommit_waits_that_are_not_worth_it_any_more_are_given_up(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, loop := newCallers(10*time.Millisecond), slices.Repeat([]func(*rand.Rand) time.Duration{between(100*time.Microsecond, 300*time.Microsecond)}, 16)
		c.atARate(t.Context(), 500)
		c.inALoop(t.Context(), loop) // learns
		before := len(c.took)
		c.inALoop(t.Context(), loop)
		without := newCallers(0)
		without.inALoop(t.Context(), loop)
		if n := len(c.took) - before; 10*n < 9*len(without.took) {
			t.Errorf("%d calls, %d without waits", n, len(without.took))
		}
	})
}
