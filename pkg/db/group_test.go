package db_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
)

// groups notes what each group was, and takes a millisecond for it.
type groups struct {
	mu  sync.Mutex
	all [][]int
}

func (g *groups) run(ctx context.Context, group []int) error {
	g.mu.Lock()
	g.all = append(g.all, slices.Clone(group))
	g.mu.Unlock()
	return pause(ctx, time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func itself(int) int { return 1 }

// busy begins a group, so that who comes now waits.
func busy(t *testing.T, wg *sync.WaitGroup, g *db.GroupCommit[int]) {
	t.Helper()
	wg.Go(func() { _ = g.Do(t.Context(), 0) })
	synctest.Wait()
}

// leavesAndStays has two come, of which the first, 1, leaves when its context ends, and 2 stays.
func leavesAndStays(t *testing.T, wg *sync.WaitGroup, g *db.GroupCommit[int], leaving context.Context) {
	t.Helper()
	wg.Go(func() {
		if err := g.Do(leaving, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("the one that left: %v", err)
		}
	})
	synctest.Wait()
	wg.Go(func() {
		if err := g.Do(t.Context(), 2); err != nil {
			t.Errorf("the one that stayed: %v", err)
		}
	})
	synctest.Wait()
}

// took is how long one takes.
func took(t *testing.T, g *db.GroupCommit[int], one int) time.Duration {
	t.Helper()
	begun := time.Now()
	if err := g.Do(t.Context(), one); err != nil {
		t.Error(err)
	}
	return time.Since(begun)
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	t.Run("those that come meanwhile share the next one, up to the bound", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(0, 3, itself, got.run)
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					if err := g.Do(t.Context(), i); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
			}
			wg.Wait()
			if diff := cmp.Diff([][]int{{0}, {1, 2, 3}, {4, 5}}, got.all); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("one that is larger than the bound goes alone", func(t *testing.T) {
		t.Parallel()
		var got groups
		g := db.NewGroupCommit(0, 3, func(n int) int { return n }, got.run)
		if err := g.Do(t.Context(), 9); err != nil || len(got.all) != 1 {
			t.Errorf("%v, %v", got.all, err)
		}
	})
	t.Run("a slow one holds nobody up for long", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := db.NewGroupCommit(0, 10, itself, func(ctx context.Context, group []int) error {
				return pause(ctx, time.Duration(group[0])*time.Millisecond)
			})
			var wg sync.WaitGroup
			wg.Go(func() { _ = g.Do(t.Context(), 10_000) })
			synctest.Wait()
			begun := time.Now()
			if err := g.Do(t.Context(), 5); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 80*time.Millisecond {
				t.Errorf("the second one took %v", took)
			}
			wg.Wait()
		})
	})
	t.Run("a member that leaves cuts its group off, and the others go again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(0, 10, itself, got.run)
			leaving, leave := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			busy(t, &wg, g)
			leavesAndStays(t, &wg, g, leaving)
			time.AfterFunc(1500*time.Microsecond, leave) // the second group is under way
			wg.Wait()
			if diff := cmp.Diff([][]int{{0}, {1, 2}, {2}}, got.all); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("one that waits leaves at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(0, 10, itself, got.run)
			leaving, leave := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			busy(t, &wg, g)
			leave()
			if err := g.Do(leaving, 1); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			wg.Wait()
			if len(got.all) != 1 {
				t.Errorf("groups: %v, want one", got.all)
			}
		})
	})
	for name, c := range map[string]struct {
		last        int // the size of the group before
		pause, size int // ms until the next one comes, and its size
		took        int // ms, with the one of the group itself
	}{
		"behind one alone the next does not linger": {last: 1, size: 1, took: 1},
		"behind two the next lingers":               {last: 2, size: 1, took: 3},
		"behind the largest small group, too":       {last: 16, size: 1, took: 3},
		"behind a crowd it does not":                {last: 17, size: 1, took: 1},
		"nor long behind a small group":             {last: 2, pause: 20, size: 1, took: 1},
		"nor if it is no small group itself":        {last: 2, size: 17, took: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got groups
				g := db.NewGroupCommit(2*time.Millisecond, 20, func(n int) int { return n }, got.run)
				_ = g.Do(t.Context(), c.last)
				_ = pause(t.Context(), time.Duration(c.pause)*time.Millisecond)
				if took := took(t, g, c.size); took != time.Duration(c.took)*time.Millisecond {
					t.Errorf("it took %v, want %d ms", took, c.took)
				}
			})
		})
	}
	t.Run("the more waits in a row are in vain, the rarer is the next", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(5*time.Millisecond, 20, func(n int) int { return n }, got.run)
			var waited []int
			for i := range 1000 {
				if took(t, g, 2) > time.Millisecond {
					waited = append(waited, i)
				}
			}
			// Of the first two nothing is known of the rate.
			if diff := cmp.Diff([]int{2, 12, 30, 64, 130, 260, 518, 776}, waited); diff != "" {
				t.Errorf("who waited (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("a short wait is never in vain", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(2*time.Millisecond, 20, func(n int) int { return n }, got.run)
			_ = g.Do(t.Context(), 2)
			for range 10 {
				if took := took(t, g, 2); took != 3*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			}
		})
	})
	t.Run("those that come while one lingers are in its group", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(2*time.Millisecond, 20, func(n int) int { return n }, got.run)
			_ = g.Do(t.Context(), 2)
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() { _ = g.Do(t.Context(), 1+i) })
				synctest.Wait()
			}
			wg.Wait()
			if diff := cmp.Diff([][]int{{2}, {1, 2, 3}}, got.all); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("one lingers until many have come", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(2*time.Millisecond, 20, itself, got.run)
			var wg sync.WaitGroup
			busy(t, &wg, g)
			begun := time.Now()
			for i := range 2 {
				wg.Go(func() { _ = g.Do(t.Context(), 1+i) })
				synctest.Wait()
			}
			wg.Wait() // the second group was a small one
			for i := range 17 {
				wg.Go(func() { _ = g.Do(t.Context(), 3+i) })
				synctest.Wait()
			}
			wg.Wait()
			if len(got.all) != 3 || len(got.all[2]) != 17 {
				t.Errorf("groups: %v", got.all)
			}
			if took := time.Since(begun); took != 3*time.Millisecond { // one for each group
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("what one has waited for the group before it counts", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(1500*time.Microsecond, 20, func(n int) int { return n }, got.run)
			var wg sync.WaitGroup
			wg.Go(func() { _ = g.Do(t.Context(), 2) }) // takes 1 ms
			synctest.Wait()
			begun := time.Now()
			_ = g.Do(t.Context(), 2)
			if took := time.Since(begun); took != 2500*time.Microsecond {
				t.Errorf("it took %v", took)
			}
			wg.Wait()
		})
	})
	t.Run("one that leaves before its group begins leaves the others alone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(time.Millisecond, 10, func(int) int { return 2 }, got.run)
			_ = g.Do(t.Context(), 0)
			leaving, leave := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			leavesAndStays(t, &wg, g, leaving)
			leave()
			wg.Wait()
			if diff := cmp.Diff([][]int{{0}, {2}}, got.all); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("a panic is its caller's, and an error of the others", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := db.NewGroupCommit(0, 10, itself, func(ctx context.Context, group []int) error {
				if len(group) > 1 {
					panic("broken")
				}
				return pause(ctx, time.Millisecond)
			})
			var wg sync.WaitGroup
			busy(t, &wg, g)
			wg.Go(func() {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				_ = g.Do(t.Context(), 1)
			})
			synctest.Wait()
			wg.Go(func() {
				if g.Do(t.Context(), 2) == nil {
					t.Error("no error")
				}
			})
			wg.Wait()
			if err := g.Do(t.Context(), 3); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	})
}

// Everybody's work is done once, whoever leaves meanwhile.
func TestGroupCommit_hammer(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	done := map[int]int{}
	g := db.NewGroupCommit(0, 7, itself, func(ctx context.Context, group []int) error {
		if err := pause(ctx, 100*time.Microsecond); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, n := range group {
			done[n]++
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					time.AfterFunc(time.Duration(j)*10*time.Microsecond, cancel)
				}
				n := i*50 + j
				err := g.Do(ctx, n)
				mu.Lock()
				if err == nil && done[n] != 1 || err != nil && i%5 != 0 || done[n] > 1 {
					t.Errorf("%d: done %d times, %v", n, done[n], err)
				}
				mu.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
}
