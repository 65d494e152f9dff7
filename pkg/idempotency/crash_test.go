package idempotency_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/idempotency"
)

// TestMain lets the test binary be a process that is killed in the middle of a request.
func TestMain(m *testing.M) {
	url := os.Getenv("TEST_HANG_ON")
	if url == "" {
		os.Exit(m.Run())
	}
	d, err := db.Open(db.Config{URL: url})
	if err != nil {
		panic(err)
	}
	_, _, err = idempotency.New(d, time.Hour).Do(context.Background(), "k", []byte("print"), func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
		_, err := work(ctx, tx)
		fmt.Println("working", err)
		<-time.After(time.Hour)
		return idempotency.Answer{}, err
	})
	panic(err)
}

// A key is not stuck after kill -9: nothing of it was committed before its answer.
func TestKeys_Do_killed(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	d, err := db.Open(db.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Migrate(t.Context(), idempotency.Migrations, tables); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "TEST_HANG_ON="+url)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if lines := bufio.NewScanner(out); !lines.Scan() || lines.Text() != "working <nil>" {
		t.Fatalf("the child said %q, want that it works", lines.Text())
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	_, replayed, err := idempotency.New(d, time.Hour).Do(t.Context(), "k", []byte("print"), work)
	if err != nil || replayed || effects(t, d) != 1 {
		t.Errorf("Do after the kill: replayed %v, %v, %d effects; want the work done once", replayed, err, effects(t, d))
	}
}
