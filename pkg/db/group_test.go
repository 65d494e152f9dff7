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

// atOnce has so many come at once, and waits for them: a group of one, and one of the others.
func atOnce(t *testing.T, g *db.GroupCommit[int], n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		busy(t, &wg, g)
	}
	wg.Wait()
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
		alone       bool // nobody has been there at the same time as another one
		last        int  // the size of the group before
		others      int  // that come alone, after that
		pause, size int  // ms until the next one comes, and its size
		took        int  // ms, with the one of the group itself
	}{
		"where all come alone none lingers":   {alone: true, last: 2, size: 1, took: 1},
		"behind a small group the next does":  {last: 1, size: 1, took: 3},
		"behind the largest small group, too": {last: 16, size: 1, took: 3},
		"behind a crowd it does not":          {last: 17, size: 1, took: 1},
		"nor long behind a small group":       {last: 2, pause: 20, size: 1, took: 1},
		"nor if it is no small group itself":  {last: 2, size: 17, took: 1},
		"where two were long ago it does not": {last: 1, others: 200, size: 1, took: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got groups
				g := db.NewGroupCommit(2*time.Millisecond, 20, func(n int) int { return n }, got.run)
				var wg sync.WaitGroup
				if !c.alone {
					wg.Go(func() { _ = g.Do(t.Context(), 17) })
					synctest.Wait()
				}
				_ = g.Do(t.Context(), c.last)
				wg.Wait()
				for range c.others { // one by one
					_ = g.Do(t.Context(), 1)
				}
				_ = pause(t.Context(), time.Duration(c.pause)*time.Millisecond)
				if took := took(t, g, c.size); took != time.Duration(c.took)*time.Millisecond {
					t.Errorf("it took %v, want %d ms", took, c.took)
				}
			})
		})
	}
	for name, c := range map[string]struct {
		linger, atOnce, took int // ms, callers, ms
	}{
		"for two a short wait is worth it":           {2, 2, 3},
		"for four a longer one is not":               {3, 4, 1},
		"for five it is":                             {3, 5, 4},
		"for many it is":                             {10, 9, 11},
		"a wait that is none is no wait for anybody": {0, 9, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got groups
				g := db.NewGroupCommit(time.Duration(c.linger)*time.Millisecond, 20, itself, got.run)
				atOnce(t, g, c.atOnce)
				if took := took(t, g, 1); took != time.Duration(c.took)*time.Millisecond {
					t.Errorf("it took %v, want %d ms", took, c.took)
				}
			})
		})
	}
	t.Run("one lingers until three quarters of as many are there as have been at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(10*time.Millisecond, 20, itself, got.run)
			atOnce(t, g, 8)
			begun, n := time.Now(), len(got.all)
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() { _ = g.Do(t.Context(), 1) })
				_ = pause(t.Context(), time.Millisecond)
			}
			wg.Wait()
			if len(got.all) != n+1 || len(got.all[n]) != 6 {
				t.Errorf("groups: %v, want one more, of six", got.all)
			}
			if took := time.Since(begun); took != 6*time.Millisecond { // the sixth came after five
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("one lingers until it is a small one no more", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(10*time.Millisecond, 40, itself, got.run)
			atOnce(t, g, 30) // one, and then 29
			_ = g.Do(t.Context(), 1)
			begun, n := time.Now(), len(got.all)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { _ = g.Do(t.Context(), 1) })
				synctest.Wait()
			}
			wg.Wait()
			if len(got.all) != n+2 || len(got.all[n]) != 17 {
				t.Errorf("groups: %v", got.all)
			}
			if took := time.Since(begun); took != 2*time.Millisecond { // one for each group
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("what one has waited for the group before it counts", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(1500*time.Microsecond, 20, itself, got.run)
			atOnce(t, g, 3)
			var wg sync.WaitGroup
			wg.Go(func() { _ = g.Do(t.Context(), 1) }) // lingers, and takes 1 ms
			synctest.Wait()
			_ = pause(t.Context(), 2*time.Millisecond)
			begun := time.Now()
			_ = g.Do(t.Context(), 2) // comes half a ms before that ends
			if took := time.Since(begun); took != 2500*time.Microsecond {
				t.Errorf("it took %v", took)
			}
			wg.Wait()
		})
	})
	t.Run("who goes when his own context ends is told so", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := db.NewGroupCommit(0, 10, itself, func(ctx context.Context, _ []int) error { return pause(ctx, time.Second) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := g.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				t.Errorf("Do: %v, want the deadline's error", err)
			}
		})
	})
	t.Run("one that leaves before its group begins leaves the others alone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var got groups
			g := db.NewGroupCommit(time.Millisecond, 10, itself, got.run)
			atOnce(t, g, 3)
			leaving, leave := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			leavesAndStays(t, &wg, g, leaving)
			leave()
			wg.Wait()
			if diff := cmp.Diff([][]int{{0}, {0, 0}, {2}}, got.all); diff != "" {
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
