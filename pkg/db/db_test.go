package db_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
)

var items = db.Migrations{Owner: "items", Files: fstest.MapFS{"migrations/00001_items.sql": {Data: []byte(`
-- +goose Up
create table items (id identity_key, name text not null unique, data bytea, n bigint not null default 0);
`)}}}

func names(t *testing.T, d *db.DB) []string {
	t.Helper()
	rows, err := d.Query(context.Background(), `select name from items order by id`)
	got, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error { return r.Scan(s) })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func insert(ctx context.Context, tx *db.Tx, name string) error {
	_, err := tx.Exec(ctx, `insert into items (name) values ($1)`, name)
	return err
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "mysql://x", "sqlite:", "postgres://user:sesame@host:bad/db"} {
		_, err := db.Open(db.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
			t.Errorf("Open(%q) = %v, want an error that names DATABASE_URL", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("Open(%q) = %v, which shows the password", url, err)
		}
	}
}

func TestMigrate_may_run_twice_and_in_many_processes_at_once(t *testing.T) {
	t.Parallel()
	url, ctx := dbtest.URL(t), context.Background()
	processes := 4
	if !dbtest.Postgres() {
		processes = 1
	}
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			d, err := db.Open(db.Config{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			for range 2 {
				if err := d.Migrate(ctx, items); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestInTx(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	failed := errors.New("failed")

	t.Run("an error or a panic keeps nothing", func(t *testing.T) {
		t.Parallel()
		d := dbtest.Open(t, items)
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(insert(ctx, tx, "a"), failed)
		})
		if !errors.Is(err, failed) {
			t.Errorf("InTx = %v, want %v", err, failed)
		}
		func() {
			defer func() { _ = recover() }()
			_ = d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
				_ = insert(ctx, tx, "b")
				panic("oops")
			})
		}()
		if got := names(t, d); len(got) > 0 {
			t.Errorf("kept %q, want nothing", got)
		}
	})
	t.Run("deferred work that fails keeps nothing", func(t *testing.T) {
		t.Parallel()
		d := dbtest.Open(t, items)
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			twice := db.Defer(tx, func(*gathered) bool { return true }, func() *gathered { return new(gathered) })
			twice.names = []string{"b", "b"}
			return insert(ctx, tx, "a")
		})
		if got := names(t, d); !db.IsDuplicate(err) || len(got) > 0 {
			t.Errorf("InTx = %v, kept %q; want a duplicate and nothing", err, got)
		}
	})
	t.Run("work after the commit is not done without one", func(t *testing.T) {
		t.Parallel()
		d := dbtest.Open(t, items)
		var done []string
		_ = d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			tx.AfterCommit(func() { done = append(done, "rolled back") })
			return failed
		})
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			_ = tx.Savepoint(ctx, func() error {
				tx.AfterCommit(func() { done = append(done, "behind a savepoint") })
				return failed
			})
			tx.AfterCommit(func() { done = append(done, "committed") })
			return nil
		})
		if diff := cmp.Diff(done, []string{"committed"}); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("transactions that cross each other are run again", func(t *testing.T) {
		t.Parallel()
		d := dbtest.Open(t, items)
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(insert(ctx, tx, "a"), insert(ctx, tx, "b"))
		})
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		first := map[string]string{"a": "b", "b": "a"}
		for one, other := range first {
			both.Go(func() {
				for range 20 {
					err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
						for _, name := range []string{one, other} {
							if _, err := tx.Exec(ctx, `update items set n = n + 1 where name = $1`, name); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		both.Wait()
		var n int
		if err := d.QueryRow(ctx, `select sum(n) from items`).Scan(&n); err != nil || n != 80 {
			t.Errorf("sum = %d, %v; want 80", n, err)
		}
	})
}

// openBreaking opens a database whose connections break.
func openBreaking(t *testing.T, b dbtest.Breaks) *db.DB {
	t.Helper()
	d, err := db.Open(db.Config{URL: dbtest.URL(t), Wrap: b.Wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// breaks is the error of one of so many connections that are left to break.
func breaks(left *atomic.Int64) error {
	if left.Add(-1) >= 0 {
		return driver.ErrBadConn
	}
	return nil
}

// Single statements outlast broken connections, as transactions do.
func TestDB_outlasts_broken_connections(t *testing.T) {
	t.Parallel()
	var broken atomic.Int64
	d := openBreaking(t, dbtest.Breaks{Statement: func(string, []driver.NamedValue, bool) error { return breaks(&broken) }})
	ctx := t.Context()
	one := func() error { var n int; return d.QueryRow(ctx, `select 1`).Scan(&n) }
	for name, do := range map[string]func() error{
		"QueryRow": one,
		"Query": func() error {
			rows, err := d.Query(ctx, `select 1`)
			if err != nil {
				return err
			}
			return rows.Close()
		},
		"Exec": func() error { _, err := d.Exec(ctx, `select 1`); return err },
	} {
		broken.Store(7)
		if err := do(); err != nil {
			t.Errorf("with seven broken connections %s = %v", name, err)
		}
		broken.Store(1000)
		if err := do(); !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("with no good connection %s = %v, want %v", name, err, driver.ErrBadConn)
		}
	}
}

// Many connections that break at once, as when many clients go away, fail nobody who stays.
func TestInTx_outlasts_broken_connections(t *testing.T) {
	t.Parallel()
	var left atomic.Int64
	d := openBreaking(t, dbtest.Breaks{Begin: func() error { return breaks(&left) }})
	if err := d.Migrate(context.Background(), items); err != nil {
		t.Fatal(err)
	}
	left.Store(12)
	if err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error { return insert(ctx, tx, "a") }); err != nil {
		t.Errorf("InTx = %v, with %d of 12 connections still to break", err, left.Load())
	}
	left.Store(1 << 30)
	if err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error { return nil }); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("with no good connection InTx = %v, want %v", err, driver.ErrBadConn)
	}
	left.Store(0)
	if got := names(t, d); !slices.Equal(got, []string{"a"}) {
		t.Errorf("rows %q", got)
	}
}

// gathered is a Deferred that inserts names.
type gathered struct{ names []string }

func (g *gathered) Len() int       { return len(g.names) }
func (g *gathered) Truncate(n int) { g.names = g.names[:n] }
func (g *gathered) Flush(ctx context.Context, tx *db.Tx) error {
	return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: g.names})
}

func TestSavepoint_undoes_what_failed_and_what_it_deferred(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	later := func(tx *db.Tx, name string) {
		g := db.Defer(tx, func(*gathered) bool { return true }, func() *gathered { return new(gathered) })
		g.names = append(g.names, name)
	}
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		later(tx, "z")
		for _, name := range []string{"a", "a", "b"} { // the second a is a duplicate
			err := tx.Savepoint(ctx, func() error {
				later(tx, "later "+name)
				return insert(ctx, tx, name)
			})
			if err != nil && !db.IsDuplicate(err) {
				return err
			}
		}
		return nil
	})
	if diff := cmp.Diff(names(t, d), []string{"a", "b", "z", "later a", "later b"}); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestInsertAll_and_In(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	all := make([]string, 500)
	data := make([][]byte, len(all))
	for i := range all {
		all[i] = string(rune('a'+i%26)) + strings.Repeat("x", i)
		data[i] = []byte{byte(i), 0, byte(i >> 8)}
	}
	data[7] = nil
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		got := 0
		err := tx.InsertReturning(ctx, "items", "returning n", func(db.Scanner) error { got++; return nil }, db.Column{Name: "name", Values: all},
			db.Column{Name: "data", Values: data}, db.Column{Name: "n", Values: make([]int64, len(all))})
		err = errors.Join(err, tx.Await(ctx))
		if got != len(all) {
			t.Errorf("%d rows returned, want %d", got, len(all))
		}
		return err
	})
	if diff := cmp.Diff(names(t, d), all); err != nil || diff != "" {
		t.Fatal("rows are numbered in the order given:", err, diff)
	}
	for _, values := range []any{all[3:6], data[3:6]} {
		column := "name"
		if _, ok := values.([][]byte); ok {
			column = "data"
		}
		cond, arg := d.In(column, 1, values)
		var n int
		if err := d.QueryRow(ctx, `select count(*) from items where `+cond, arg).Scan(&n); err != nil || n != 3 {
			t.Errorf("%s: %d rows, %v; want 3", cond, n, err)
		}
	}
	var nulls int
	if err := d.QueryRow(ctx, `select count(*) from items where data is null`).Scan(&nulls); err != nil || nulls != 1 {
		t.Errorf("%d nulls, %v; want 1", nulls, err)
	}
}

// 12,000 rows of three columns are more than one statement of SQLite takes.
func TestInsertAll_has_no_limit_of_rows(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	all := make([]string, 12_000)
	for i := range all {
		all[i] = fmt.Sprintf("%05d", (i*7919)%len(all)) // not in the order of their names
	}
	columns := []db.Column{{Name: "name", Values: all}, {Name: "data", Values: make([][]byte, len(all))}, {Name: "n", Values: make([]int64, len(all))}}
	var returned []string
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		returned = nil
		if err := tx.InsertAll(ctx, "items", "", columns...); err != nil {
			return err
		}
		return tx.InsertReturning(ctx, "items", "on conflict (name) do update set n = items.n + 1 returning name", func(r db.Scanner) error {
			var name string
			err := r.Scan(&name)
			returned = append(returned, name)
			return err
		}, columns...)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names(t, d), all) || len(returned) != len(all) {
		t.Errorf("%d rows in the order given: %v; %d returned", len(names(t, d)), slices.Equal(names(t, d), all), len(returned))
	}
}

func TestInsertAll_of_no_rows_does_nothing(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{}})
	})
	if err != nil || len(names(t, d)) > 0 {
		t.Errorf("%v, %q", err, names(t, d))
	}
}

func TestSaveSchema_keeps_the_newest_text_of_an_ID(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t)
	for _, s := range []string{"old", "new"} {
		if err := d.SaveSchema(ctx, 7, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.LoadSchemas(ctx)
	if diff := cmp.Diff(got, map[int]string{7: "new"}); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestSavepoint_undoes_what_an_inner_one_has_left(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	oops := errors.New("oops")
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		outer := tx.Savepoint(ctx, func() error {
			if err := insert(ctx, tx, "outer"); err != nil {
				return err
			}
			inner := tx.Savepoint(ctx, func() error { return errors.Join(insert(ctx, tx, "inner"), oops) })
			if !errors.Is(inner, oops) {
				t.Errorf("inner = %v", inner)
			}
			return oops
		})
		if !errors.Is(outer, oops) {
			t.Errorf("outer = %v", outer)
		}
		return insert(ctx, tx, "after")
	})
	if got := names(t, d); err != nil || !slices.Equal(got, []string{"after"}) {
		t.Errorf("%v, rows %q, want only the one behind both", err, got)
	}
}

// On PostgreSQL a statement that fails spoils what follows, whether its error is looked at or not.
func TestSavepoint_survives_an_error_that_was_ignored(t *testing.T) {
	t.Parallel()
	ctx, d := context.Background(), dbtest.Open(t, items)
	err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		err := tx.Savepoint(ctx, func() error {
			_, _ = tx.Exec(ctx, `insert into nowhere (name) values ('x')`)
			return nil
		})
		var broken *db.BrokenError
		if errors.As(err, &broken) || (err != nil) != dbtest.Postgres() {
			t.Errorf("Savepoint = %v, want an error on PostgreSQL, which leaves the transaction whole", err)
		}
		return insert(ctx, tx, "after")
	})
	if got := names(t, d); err != nil || !slices.Equal(got, []string{"after"}) {
		t.Errorf("%v, rows %q", err, got)
	}
}
