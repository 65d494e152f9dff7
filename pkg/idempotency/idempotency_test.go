package idempotency_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/idempotency"
)

var tables = db.Migrations{Owner: "test", Files: fstest.MapFS{"migrations/00001_test.sql": {Data: []byte(`
-- +goose Up
create table effect (n bigint not null);
`)}}}

func work(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
	_, err := tx.Exec(ctx, `insert into effect (n) values (1)`)
	return idempotency.Answer{Status: 202, Location: "/x/1", Body: []byte(`{"n":1}`)}, err
}

func effects(t *testing.T, d *db.DB) (n int) {
	t.Helper()
	if err := d.QueryRow(context.Background(), `select count(*) from effect`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKeys_Do(t *testing.T) {
	t.Parallel()
	ctx, print := context.Background(), []byte("print")
	open := func(t *testing.T, ttl time.Duration) (*db.DB, *idempotency.Keys) {
		d := dbtest.Open(t, idempotency.Migrations, tables)
		return d, idempotency.New(d, ttl)
	}
	t.Run("fifty at once do the work once and get one answer", func(t *testing.T) {
		t.Parallel()
		d, keys := open(t, time.Hour)
		var replays atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				a, replayed, err := keys.Do(ctx, "k", print, work)
				if replayed {
					replays.Add(1)
				}
				want := idempotency.Answer{Status: 202, Location: "/x/1", Body: []byte(`{"n":1}`)}
				if diff := cmp.Diff(a, want); err != nil || diff != "" {
					t.Error(err, diff)
				}
			})
		}
		wg.Wait()
		if effects(t, d) != 1 || replays.Load() != 49 {
			t.Errorf("%d effects, %d replays; want 1 and 49", effects(t, d), replays.Load())
		}
	})
	t.Run("a key of another request is refused", func(t *testing.T) {
		t.Parallel()
		_, keys := open(t, time.Hour)
		if _, _, err := keys.Do(ctx, "k", print, work); err != nil {
			t.Fatal(err)
		}
		if _, _, err := keys.Do(ctx, "k", []byte("other"), work); !errors.Is(err, idempotency.ErrMismatch) {
			t.Errorf("Do with another body = %v, want ErrMismatch", err)
		}
	})
	t.Run("work that failed leaves nothing and may be tried again", func(t *testing.T) {
		t.Parallel()
		d, keys := open(t, time.Hour)
		failed := errors.New("failed")
		_, _, err := keys.Do(ctx, "k", print, func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
			a, err := work(ctx, tx)
			return a, errors.Join(err, failed)
		})
		if !errors.Is(err, failed) || effects(t, d) != 0 {
			t.Errorf("Do = %v with %d effects, want %v and none", err, effects(t, d), failed)
		}
		if _, replayed, err := keys.Do(ctx, "k", print, work); replayed || err != nil {
			t.Errorf("Do = replayed %v, %v; want the work done", replayed, err)
		}
	})
	t.Run("work whose answer cannot be stored leaves nothing", func(t *testing.T) {
		t.Parallel()
		d, keys := open(t, time.Hour)
		_, _, err := keys.Do(ctx, "k", print, func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
			a, err := work(ctx, tx)
			a.Body = nil // no JSON
			return a, err
		})
		if err == nil || effects(t, d) != 0 {
			t.Errorf("Do = %v with %d effects, want an error and none", err, effects(t, d))
		}
		if _, replayed, err := keys.Do(ctx, "k", print, work); replayed || err != nil {
			t.Errorf("Do = replayed %v, %v; want the work done", replayed, err)
		}
	})
	t.Run("an expired key is forgotten", func(t *testing.T) {
		t.Parallel()
		d, keys := open(t, -time.Second)
		for range 2 {
			if _, replayed, err := keys.Do(ctx, "k", print, work); replayed || err != nil {
				t.Errorf("Do = replayed %v, %v; want the work done", replayed, err)
			}
		}
		if effects(t, d) != 2 {
			t.Errorf("%d effects, want 2", effects(t, d))
		}
	})
	t.Run("a twin of work that takes long is told so", func(t *testing.T) {
		t.Parallel()
		if !dbtest.Postgres() {
			t.Log("SQLite: a twin waits for the writer, under its context")
			return
		}
		_, keys := open(t, time.Hour)
		begun, end := make(chan struct{}), make(chan struct{})
		first := make(chan error)
		go func() {
			_, _, err := keys.Do(ctx, "k", print, func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
				close(begun)
				<-end
				return work(ctx, tx)
			})
			first <- err
		}()
		<-begun
		if _, _, err := keys.Do(ctx, "k", print, work); !errors.Is(err, idempotency.ErrInFlight) {
			t.Errorf("Do beside its twin = %v, want ErrInFlight", err)
		}
		close(end)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"abc": "abc", `"abc"`: "abc", ` "a\"b\\c" `: `a"b\c`, "a b": "a b", strings.Repeat("k", 255): strings.Repeat("k", 255),
	} {
		if got, err := idempotency.ParseKey(header); got != want || err != nil {
			t.Errorf("ParseKey(%q) = %q, %v; want %q", header, got, err, want)
		}
	}
	for _, header := range []string{"", `""`, `"abc`, `"a"b`, `"a\x"`, "ä", "a\x00", strings.Repeat("k", 256)} {
		if _, err := idempotency.ParseKey(header); !errors.Is(err, idempotency.ErrKey) {
			t.Errorf("ParseKey(%q) = %v, want ErrKey", header, err)
		}
	}
}
