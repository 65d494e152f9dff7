package emitter_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/emitter"
	"github.com/google/go-cmp/cmp"
)

func ExampleEmitter() {
	var placed emitter.Emitter[string]
	off := placed.On(func(_ context.Context, id string) { fmt.Println("placed", id) })
	placed.Emit(context.Background(), "A1")
	off()
	placed.Emit(context.Background(), "A2")
	// Output: placed A1
}

// collect returns a listener and the events that it has seen.
func collect() (func(context.Context, int), *[]int) {
	var seen []int
	return func(_ context.Context, n int) { seen = append(seen, n) }, &seen
}

func TestEmitter_On(t *testing.T) {
	t.Parallel()
	t.Run("listeners are called in the order of registration", func(t *testing.T) {
		t.Parallel()
		var e emitter.Emitter[int]
		var got []string
		for _, name := range []string{"a", "b", "c"} {
			e.On(func(_ context.Context, n int) { got = append(got, fmt.Sprint(name, n)) })
		}
		e.Emit(t.Context(), 1)
		if diff := cmp.Diff([]string{"a1", "b1", "c1"}, got); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
	t.Run("a listener removes itself while it is called", func(t *testing.T) {
		t.Parallel()
		var e emitter.Emitter[int]
		var got []int
		var off func()
		off = e.On(func(_ context.Context, n int) { got = append(got, n); off() })
		after, seen := collect()
		e.On(after)
		e.Emit(t.Context(), 1)
		e.Emit(t.Context(), 2)
		off()
		if diff := cmp.Diff([]int{1}, got); diff != "" {
			t.Errorf("removed listener (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int{1, 2}, *seen); diff != "" {
			t.Errorf("listener behind it (-want +got):\n%s", diff)
		}
	})
	t.Run("a listener that an earlier one removes is not called", func(t *testing.T) {
		t.Parallel()
		var e emitter.Emitter[int]
		var off func()
		e.On(func(context.Context, int) { off() })
		fn, seen := collect()
		off = e.On(fn)
		e.Emit(t.Context(), 1)
		if len(*seen) != 0 {
			t.Errorf("removed listener saw %v, want nothing", *seen)
		}
	})
	t.Run("a listener that is added meanwhile sees the next event", func(t *testing.T) {
		t.Parallel()
		var e emitter.Emitter[int]
		fn, seen := collect()
		var once sync.Once
		e.On(func(context.Context, int) { once.Do(func() { e.On(fn) }) })
		e.Emit(t.Context(), 1)
		e.Emit(t.Context(), 2)
		if diff := cmp.Diff([]int{2}, *seen); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestEmitter_panicIsIsolated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var panics []any
		e := emitter.Emitter[int]{OnPanic: func(r any) {
			mu.Lock()
			defer mu.Unlock()
			panics = append(panics, r)
		}}
		e.On(func(context.Context, int) { panic("sync") })
		fn, seen := collect()
		e.On(fn)
		var handled atomic.Int32
		e.OnAsync(8, func(_ context.Context, n int) {
			if n == 1 {
				panic("async")
			}
			handled.Add(1)
		})
		e.Emit(t.Context(), 1)
		synctest.Wait()
		e.Emit(t.Context(), 2)
		synctest.Wait()
		if diff := cmp.Diff([]int{1, 2}, *seen); diff != "" {
			t.Errorf("listener behind the panicking one (-want +got):\n%s", diff)
		}
		if got := handled.Load(); got != 1 {
			t.Errorf("async listener handled %d events after its panic, want 1", got)
		}
		if diff := cmp.Diff([]any{"sync", "async", "sync"}, panics); diff != "" {
			t.Errorf("reported panics (-want +got):\n%s", diff)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestEmitter_OnAsync(t *testing.T) {
	t.Parallel()
	t.Run("emit does not wait, the oldest is dropped, close waits", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var e emitter.Emitter[int]
			var got []int
			e.OnAsync(2, func(_ context.Context, n int) {
				<-time.After(time.Hour)
				got = append(got, n)
			})
			start := time.Now()
			e.Emit(t.Context(), 0)
			synctest.Wait() // 0 is being handled now
			for n := 1; n <= 5; n++ {
				e.Emit(t.Context(), n)
			}
			if d := time.Since(start); d != 0 {
				t.Errorf("emit took %v, want no time", d)
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
			e.Emit(t.Context(), 6)
			if diff := cmp.Diff([]int{0, 4, 5}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("the listener's context outlives the emitter's but keeps its values", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			type key struct{}
			var e emitter.Emitter[int]
			var got string
			e.OnAsync(1, func(ctx context.Context, _ int) {
				got = fmt.Sprint(ctx.Value(key{}), ctx.Err())
			})
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
			cancel()
			e.Emit(ctx, 1)
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if want := "kept<nil>"; got != want {
				t.Errorf("context: got %s, want %s", got, want)
			}
		})
	})
	t.Run("a removed listener drops what waits for it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var e emitter.Emitter[int]
			var got []int
			var off func()
			off = e.OnAsync(8, func(_ context.Context, n int) {
				<-time.After(time.Second)
				got = append(got, n)
				off()
			})
			for n := range 5 {
				e.Emit(t.Context(), n)
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]int{0}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("close gives up when its context ends", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var e emitter.Emitter[int]
			release := make(chan struct{})
			e.OnAsync(1, func(context.Context, int) { <-release })
			e.Emit(t.Context(), 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("close: got %v, want deadline exceeded", err)
			}
			close(release)
			if err := e.Close(t.Context()); err != nil {
				t.Errorf("second close: %v", err)
			}
		})
	})
	t.Run("a closed emitter takes no listener", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var e emitter.Emitter[int]
			if err := e.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			fn, seen := collect()
			e.On(fn)
			off := e.OnAsync(1, fn)
			e.Emit(t.Context(), 1)
			off()
			if len(*seen) != 0 {
				t.Errorf("listeners of a closed emitter saw %v", *seen)
			}
		})
	})
}

// Everything at once, for the race detector: nothing may be called after its removal, and
// each asynchronous listener sees its events in order.
func TestEmitter_hammer(t *testing.T) {
	t.Parallel()
	var e emitter.Emitter[int]
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for n := range 500 {
				e.Emit(t.Context(), n)
			}
		})
		group.Go(func() {
			for i := range 200 {
				var calls atomic.Int32
				off := e.On(func(context.Context, int) { calls.Add(1) })
				offAsync := e.OnAsync(1+i%3, func(context.Context, int) { calls.Add(1) })
				e.Emit(t.Context(), i)
				off()
				go offAsync()
			}
		})
	}
	group.Wait()
	var last atomic.Int64
	e.OnAsync(1000, func(_ context.Context, n int) {
		if !last.CompareAndSwap(int64(n-1), int64(n)) {
			t.Errorf("event %d came after %d", n, last.Load())
		}
	})
	for n := 1; n <= 1000; n++ {
		e.Emit(t.Context(), n)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := last.Load(); got != 1000 {
		t.Errorf("last event %d, want 1000", got)
	}
}
