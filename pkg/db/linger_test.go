package db_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/db"
)

// callers come for five seconds to groups of which each takes 2 ms, or as long as run says.
type callers struct {
	group *db.GroupCommit[int]

	mu     sync.Mutex
	groups int
	took   []time.Duration
}

const comeFor = 5 * time.Second

func newCallers(linger time.Duration) *callers { return newSlowCallers(linger, 2*time.Millisecond) }

func newSlowCallers(linger, run time.Duration) *callers {
	c := &callers{}
	c.group = db.NewGroupCommit(linger, 250, itself, func(ctx context.Context, _ []int) error {
		c.mu.Lock()
		c.groups++
		c.mu.Unlock()
		return pause(ctx, run)
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

// Who comes back at once when he has his answer is faster, since fewer transactions do; who comes back
// later or at random is at most somewhat slower.
func TestGroupCommit_callers_who_wait_for_their_answers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	quick, slow, mixed := between(ms/10, 3*ms/10), between(4*ms, 5*ms), between(ms/10, 4*ms)
	type thinks = []func(*rand.Rand) time.Duration
	for name, c := range map[string]struct {
		linger, run time.Duration
		think       thinks
		percent     int // of the calls without waits, at least
	}{
		"one":                           {10 * ms, 2 * ms, thinks{quick}, 97},
		"two":                           {10 * ms, 2 * ms, thinks{quick, quick}, 97},
		"two, one of whom is slower":    {10 * ms, 2 * ms, thinks{quick, slow}, 97},
		"four out of step":              {10 * ms, 2 * ms, slices.Repeat(thinks{mixed}, 4), 95},
		"eight":                         {10 * ms, 2 * ms, slices.Repeat(thinks{quick}, 8), 125},
		"eight, and groups are slow":    {10 * ms, 5 * ms, slices.Repeat(thinks{quick}, 8), 130},
		"eight who come back late":      {10 * ms, 5 * ms, slices.Repeat(thinks{slow}, 8), 70},
		"sixteen when the wait is over": {10 * ms, 2 * ms, slices.Repeat(thinks{between(8*ms, 10*ms)}, 16), 60},
		"six, and two slower ones":      {10 * ms, 2 * ms, append(slices.Repeat(thinks{quick}, 6), slow, slow), 125},
		"sixteen":                       {10 * ms, 4 * ms, slices.Repeat(thinks{quick}, 16), 130},
		"sixteen out of step":           {10 * ms, 4 * ms, slices.Repeat(thinks{mixed}, 16), 88},
		"a crowd":                       {10 * ms, 2 * ms, slices.Repeat(thinks{quick}, 32), 95},
		"a crowd out of step":           {10 * ms, 2 * ms, slices.Repeat(thinks{mixed}, 32), 88},
		"three and a short wait":        {2 * ms, 2 * ms, slices.Repeat(thinks{quick}, 3), 150},
		"three late and a short wait":   {2 * ms, 2 * ms, slices.Repeat(thinks{slow}, 3), 90},
		"eight and a shorter wait":      {ms, ms, slices.Repeat(thinks{quick}, 8), 90},
		"eight out of step, and short":  {ms, ms, slices.Repeat(thinks{mixed}, 8), 90},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				with, without := newSlowCallers(c.linger, c.run), newSlowCallers(0, c.run)
				with.inALoop(t.Context(), c.think)
				without.inALoop(t.Context(), c.think)
				t.Logf("%d and without waits %d calls", len(with.took), len(without.took))
				if 100*len(with.took) < c.percent*len(without.took) {
					t.Errorf("%d calls, %d without waits, want %d %%", len(with.took), len(without.took), c.percent)
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

// Nor does anybody wait for those who were there before a pause.
func TestGroupCommit_who_was_there_before_a_pause_is_forgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(10 * time.Millisecond)
		var crowd sync.WaitGroup
		for range 9 {
			crowd.Go(func() { c.come(t.Context()) })
		}
		crowd.Wait()
		_ = pause(t.Context(), time.Hour)
		c.took = nil
		for range 10 {
			c.come(t.Context())
		}
		if longest := slices.Max(c.took); longest > 2*time.Millisecond {
			t.Errorf("one took %v", longest)
		}
	})
}

// lingering is a group of which the next one lingers, since as many as crowd have been there at once.
func lingering(t *testing.T, linger time.Duration, crowd int) (*db.GroupCommit[int], *groups) {
	t.Helper()
	var got groups
	g := db.NewGroupCommit(linger, 100, func(n int) int { return n }, got.run)
	var wg sync.WaitGroup
	for range crowd {
		wg.Go(func() { _ = g.Do(t.Context(), 1) })
	}
	wg.Wait()
	took(t, g, 1) // a small group
	return g, &got
}

func TestGroupCommit_nobody_lingers_any_more_when(t *testing.T) {
	t.Parallel()
	t.Run("all are there", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := newCallers(10 * time.Millisecond).group // whose groups take 2 ms
			begun := time.Now()
			atOnce(t, g, 8)
			if took := time.Since(begun); took > 4*time.Millisecond {
				t.Errorf("they took %v", took)
			}
		})
	})
	t.Run("they are a small group no more", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g, got := lingering(t, 10*time.Millisecond, 12)
			var wg sync.WaitGroup
			begun := time.Now()
			for _, size := range []int{5, 12} {
				wg.Go(func() { _ = g.Do(t.Context(), size) })
				synctest.Wait()
			}
			wg.Wait()
			if took := time.Since(begun); took > time.Millisecond {
				t.Errorf("they took %v, in %v", took, got.all)
			}
		})
	})
	t.Run("he leaves", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g, _ := lingering(t, 10*time.Millisecond, 8)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			begun := time.Now()
			if err := g.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	})
}

// Some groups later nobody waits any more for callers who are gone.
func TestGroupCommit_who_does_not_come_any_more_is_forgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, few := newCallers(10*time.Millisecond), slices.Repeat([]func(*rand.Rand) time.Duration{between(100*time.Microsecond, 300*time.Microsecond)}, 3)
		c.atARate(t.Context(), 500)
		before := len(c.took)
		c.inALoop(t.Context(), few)
		without := newCallers(0)
		without.inALoop(t.Context(), few)
		if n := len(c.took) - before; 100*n < 95*len(without.took) {
			t.Errorf("%d calls, %d without waits", n, len(without.took))
		}
	})
}
