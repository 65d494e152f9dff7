package main

import (
	"testing"
	"time"
)

func TestEffects(t *testing.T) {
	t.Parallel()
	waits := make([]time.Duration, 4)
	run := func(t *testing.T, ids ...string) *effects {
		t.Helper()
		e := newEffects(waits, len(ids))
		for _, id := range ids {
			if err := e.run(t.Context(), "key", id); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	t.Run("gaps are other keys' events", func(t *testing.T) {
		t.Parallel()
		if err := run(t, "0", "1", "3").verdict(3); err != nil {
			t.Error(err)
		}
	})
	t.Run("an event too few is noticed", func(t *testing.T) {
		t.Parallel()
		if err := run(t, "0", "1").verdict(3); err == nil {
			t.Error("no error")
		}
	})
	t.Run("disorder is noticed", func(t *testing.T) {
		t.Parallel()
		if err := run(t, "0", "2", "1").verdict(3); err == nil {
			t.Error("no error")
		}
	})
	t.Run("two of a key at once are noticed", func(t *testing.T) {
		t.Parallel()
		e := newEffects(waits, 2)
		e.begin("key", 0)
		e.begin("key", 1)
		if e.disorder != 1 {
			t.Errorf("disorder = %d, want 1", e.disorder)
		}
	})
}
