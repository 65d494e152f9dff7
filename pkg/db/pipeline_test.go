package db_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
)

// What is sent with the next statement fails with it, or with the commit, and nothing is kept.
func TestInsertAll_whose_error_comes_later(t *testing.T) {
	t.Parallel()
	add := func(ctx context.Context, tx *db.Tx, all ...string) error {
		return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: all}, db.Column{Name: "n", Values: make([]int64, len(all))})
	}
	for _, tt := range []struct {
		name string
		fn   func(ctx context.Context, tx *db.Tx) error
		want []string // afterwards
		dup  bool
	}{
		{"at the commit", func(ctx context.Context, tx *db.Tx) error { return add(ctx, tx, "b", "b") }, []string{"a"}, true},
		{"at a query", func(ctx context.Context, tx *db.Tx) error {
			if err := add(ctx, tx, "b", "b"); err != nil {
				return err
			}
			var n int
			return tx.QueryRow(ctx, `select count(*) from items`).Scan(&n)
		}, []string{"a"}, true},
		{"at another statement", func(ctx context.Context, tx *db.Tx) error {
			if err := add(ctx, tx, "b", "b"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `delete from items`)
			return err
		}, []string{"a"}, true},
		{"in a savepoint, which is undone alone", func(ctx context.Context, tx *db.Tx) error {
			if err := add(ctx, tx, "b"); err != nil {
				return err
			}
			if err := tx.Savepoint(ctx, func() error { return add(ctx, tx, "c", "b") }); !db.IsDuplicate(err) {
				return fmt.Errorf("the savepoint says %v", err)
			}
			return add(ctx, tx, "d")
		}, []string{"a", "b", "d"}, false},
		{"never, if the savepoint fails before it is sent", func(ctx context.Context, tx *db.Tx) error {
			failed := errors.New("failed")
			err := tx.Savepoint(ctx, func() error { return errors.Join(failed, add(ctx, tx, "b", "b")) })
			if !errors.Is(err, failed) {
				return err
			}
			return add(ctx, tx, "c")
		}, []string{"a", "c"}, false},
		{"it does not come, and what was written is there to be read", func(ctx context.Context, tx *db.Tx) error {
			if err := add(ctx, tx, "b", "c"); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRow(ctx, `select count(*) from items`).Scan(&n); err != nil || n != 3 {
				return fmt.Errorf("%d rows, %v", n, err)
			}
			return add(ctx, tx, "d")
		}, []string{"a", "b", "c", "d"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := dbtest.Open(t, items)
			for range 2 { // the connection can be used again
				_, _ = d.Exec(t.Context(), `delete from items`)
				if err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error { return add(ctx, tx, "a") }); err != nil {
					t.Fatal(err)
				}
				if err := d.Once(t.Context(), tt.fn); db.IsDuplicate(err) != tt.dup || !tt.dup && err != nil {
					t.Errorf("Once = %v, want a duplicate: %v", err, tt.dup)
				}
				if got := names(t, d); !slices.Equal(got, tt.want) {
					t.Errorf("rows %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// What a transaction that fails has not sent is never sent, whatever its connection is used for next.
func TestInsertAll_of_a_transaction_that_fails_is_not_sent_later(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, items)
	failed := errors.New("failed")
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return errors.Join(failed, tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{"a"}}))
	})
	if !errors.Is(err, failed) {
		t.Errorf("InTx = %v, want %v", err, failed)
	}
	if _, err := d.Exec(t.Context(), `insert into items (name) values ('b')`); err != nil {
		t.Error(err)
	}
	if got := names(t, d); !slices.Equal(got, []string{"b"}) {
		t.Errorf("rows %q, want b alone", got)
	}
}

// PostgreSQL answers the commit of a transaction in which a statement has failed with a rollback.
func TestInTx_commit_that_is_a_rollback_is_an_error(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Log("SQLite: a statement that fails is undone alone")
		return
	}
	d := dbtest.Open(t, items)
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		if _, err := tx.Exec(ctx, `insert into items (name) values ('a')`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `select 1/0`); err == nil {
			t.Error("no error")
		}
		return nil
	})
	if got := names(t, d); err == nil || len(got) > 0 {
		t.Errorf("InTx = %v, rows %q; want an error and none", err, got)
	}
}

// A query that is the first of its transaction, and so sent with its begin, reads what any other does.
func TestTx_first_query(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, items)
	type row struct {
		n     int64
		text  string
		data  []byte
		none  sql.NullString
		yes   bool
		small int
	}
	want := row{n: 1 << 40, text: "a'ä", data: []byte{0, 255}, yes: true, small: 7}
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{"a"}}, db.Column{Name: "data", Values: [][]byte{want.data}})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range []bool{false, true} {
		err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if rest {
				if _, err := tx.Exec(ctx, `update items set n = 1`); err != nil {
					return err
				}
			}
			var got row
			err := tx.QueryRow(ctx, `select 1099511627776, 'a''ä', data, null, 1 = 1, 7 from items where name = $1`, "a").
				Scan(&got.n, &got.text, &got.data, &got.none, &got.yes, &got.small)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
				t.Errorf("after another statement: %v (-want +got):\n%s", rest, diff)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("an empty transaction ends as its function does", func(t *testing.T) {
		t.Parallel()
		if err := d.InTx(t.Context(), func(context.Context, *db.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
		failed := errors.New("failed")
		if err := d.InTx(t.Context(), func(context.Context, *db.Tx) error { return failed }); err != failed {
			t.Errorf("InTx = %v, want %v", err, failed)
		}
	})
	t.Run("no row is an error of its own", func(t *testing.T) {
		t.Parallel()
		err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			var n int
			return tx.QueryRow(ctx, `select n from items where name = $1`, "nobody").Scan(&n)
		})
		if !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("InTx = %v, want %v", err, sql.ErrNoRows)
		}
	})
}

func TestUpdateAll(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, items)
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		err := tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{"a", "b", "c"}}, db.Column{Name: "n", Values: db.SQL("40 + 2")})
		if err != nil {
			return err
		}
		return tx.UpdateAll(ctx, "items", db.Column{Name: "name", Values: []string{"c", "a", "nobody"}},
			db.Column{Name: "n", Values: []int64{3, 1, 0}}, db.Column{Name: "data", Values: [][]byte{{3}, nil, nil}})
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.Query(t.Context(), `select name, n, data from items order by name`)
	got, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error {
		var n int64
		var data []byte
		err := r.Scan(s, &n, &data)
		*s += fmt.Sprint(n, data)
		return err
	})
	if diff := cmp.Diff([]string{"a1 []", "b42 []", "c3 [3]"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// Rows that two transactions lock in different orders of values are no deadlock.
func TestLockEach(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, items)
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{"a", "b", "c"}},
			db.Column{Name: "data", Values: [][]byte{{1}, {2}, {3}}}, db.Column{Name: "n", Values: []int64{0, 0, 0}})
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	errs := make(chan error, 2)
	for _, values := range [][][]byte{{{1}, {3}, {2}, {1}, {9}}, {{2}, {1}, {3}}} {
		go func() {
			for range 50 {
				err := d.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
					query, arg := tx.LockEach("items", "name", "n >= $1", "data", 2, values)
					rows, err := tx.Query(ctx, query, 0, arg)
					got, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error { return r.Scan(s) })
					if slices.Sort(got); err == nil && !slices.Equal(got, []string{"a", "b", "c"}) {
						err = fmt.Errorf("locked %q", got)
					}
					return err
				})
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
