package all_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestCleanStop is promise 13. No other test runs beside it, so that what it finds running is
// this shop's.
func TestCleanStop(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := prepare(t, nil)
	before := ours()
	s.start()
	sku := newSKU("tea")
	s.receive(sku, 100)
	for range 20 {
		s.place(line{sku, 1, 450}) // the stop comes while these are under way
	}
	if len(ours()) <= len(before) {
		t.Fatal("nothing of the shop is seen to run: the test has no teeth")
	}
	s.stop()
	eventually(t, "nothing of the shop runs", func() bool { return len(ours()) <= len(before) })
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("%s is left of the shop", entry.Name())
	}
}

// ours are the goroutines that run code of the shop or of what it stands on.
func ours() (stacks []string) {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		for _, mark := range []string{"/keyline/pkg/", "/keyline/services/all.", "franz-go", "go-smtp", "database/sql", "net/http", "opentelemetry"} {
			if strings.Contains(stack, mark) && !strings.Contains(stack, "all_test.ours") {
				stacks = append(stacks, stack)
				break
			}
		}
	}
	return stacks
}
