package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	t.Parallel()
	var got tail
	for i := range 10_000 {
		if _, err := got.Write([]byte(strconv.Itoa(i) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != tailBytes || !strings.HasSuffix(string(got), "9998\n9999\n") {
		t.Errorf("%d bytes to %q, want the last %d", len(got), got[len(got)-10:], tailBytes)
	}
}

func TestSpawn(t *testing.T) {
	t.Parallel()
	t.Run("a child says why it has ended", func(t *testing.T) {
		t.Parallel()
		if _, err := ask[string]("nobody", nil); err == nil || !strings.Contains(err.Error(), `there is no role "nobody"`) {
			t.Errorf("ask: %v, want what the process said", err)
		}
	})
	t.Run("a server serves until it is ended", func(t *testing.T) {
		t.Parallel()
		c, addr, err := spawnServer[string]("broker", nil)
		if err != nil {
			t.Fatal(err)
		}
		if addr == "" || c.pid() == os.Getpid() {
			t.Errorf("address %q, process %d", addr, c.pid())
		}
		if err := c.end(); err != nil {
			t.Error(c.explain(err))
		}
	})
	t.Run("nobody asks who has given up", func(t *testing.T) {
		t.Parallel()
		c := &child{role: "broker", said: tail("gone")}
		if got := c.explain(context.Canceled); got != context.Canceled {
			t.Errorf("explain = %v", got)
		}
	})
}
