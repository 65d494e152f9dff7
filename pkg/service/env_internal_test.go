package service

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"weak"
)

func TestGiveBack(t *testing.T) {
	t.Parallel()
	var pool sync.Pool
	buffer := new([4 << 20]byte)
	kept := weak.Make(buffer)
	pool.Put(buffer)
	giveBack()
	if kept.Value() != nil {
		t.Error("a buffer in a pool is still there")
	}
	pool.Get()
}

// Not parallel: it is about the whole process.
func TestCollectLess(t *testing.T) {
	heap := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
	for _, tc := range []struct {
		name, gogc string
		limit      int64
		percent    int
		spare      uint64 // what may be allocated between two collections at least
	}{
		{"as Go does where GOGC says so", "100", math.MaxInt64, 100, 0},
		{"in proportion where the memory is bounded", "", 512 << 20, 400, 0},
		{"by 24 MB everywhere else", "", math.MaxInt64, 100, 24 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("GOGC", tc.gogc)
			limit, percent := debug.SetMemoryLimit(tc.limit), debug.SetGCPercent(100)
			t.Cleanup(func() {
				debug.SetMemoryLimit(limit)
				debug.SetGCPercent(percent)
				ballast = nil
			})
			CollectLess()
			runtime.GC()
			metrics.Read(heap)
			if spare := heap[0].Value.Uint64() - heap[1].Value.Uint64(); spare < tc.spare || tc.spare == 0 && ballast != nil {
				t.Errorf("%d MiB may be allocated between two collections, the ballast has %d MiB", spare>>20, len(ballast)>>20)
			}
			if percent := debug.SetGCPercent(100); percent != tc.percent {
				t.Errorf("GOGC is %d", percent)
			}
		})
	}
}
