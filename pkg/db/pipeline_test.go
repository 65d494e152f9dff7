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

// numbered are items whose numbers count from 1, each under the name and the data of its group.
func numbered(t *testing.T, groups ...string) *db.DB {
	d := dbtest.Open(t, items)
	names, data, n := make([]string, len(groups)), make([][]byte, len(groups)), make([]int64, len(groups))
	for i, g := range groups {
		names[i], data[i], n[i] = fmt.Sprint(i+1), []byte(g), int64(i+1)
	}
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: names}, db.Column{Name: "data", Values: data}, db.Column{Name: "n", Values: n})
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFirstEach(t *testing.T) {
	t.Parallel()
	d := numbered(t, "a", "b", "a", "b", "a", "c", "a", "b")
	for _, tt := range []struct {
		most int
		want []string
	}{{1, []string{"a3", "b4"}}, {2, []string{"a3", "a5", "b4", "b8"}}, {9, []string{"a3", "a5", "a7", "b4", "b8"}}} {
		err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			query, arg := tx.FirstEach("items", "data, n", "n > $1", "data", "id", 2, [][]byte{[]byte("b"), []byte("a"), []byte("d")}, tt.most)
			rows, err := tx.Query(ctx, query, 2, arg)
			got, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error {
				var data []byte
				var n int
				err := r.Scan(&data, &n)
				*s = fmt.Sprint(string(data), n)
				return err
			})
			if slices.Sort(got); !slices.Equal(got, tt.want) {
				t.Errorf("the first %d: %q, want %q", tt.most, got, tt.want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Rows of a query that is sent later have been read when the next statement is answered, and are
// those of its own moment.
func TestTx_QueryLater(t *testing.T) {
	t.Parallel()
	d := numbered(t, "a", "b", "c")
	failed := errors.New("cannot be read")
	read := func(ctx context.Context, tx *db.Tx, scanErr error) (func() []int, error) {
		var all []int
		err := tx.QueryLater(ctx, func(row db.Scanner) error {
			var n int
			err := row.Scan(&n)
			all = append(all, n)
			return errors.Join(err, scanErr)
		}, `select n from items where n > $1 order by n`, 1)
		return func() []int { return all }, err
	}
	for _, tt := range []struct {
		name    string
		answer  func(ctx context.Context, tx *db.Tx) error
		scanErr error
	}{
		{"at a query", func(ctx context.Context, tx *db.Tx) error {
			var n int
			err := tx.QueryRow(ctx, `select count(*) from items`).Scan(&n)
			if err == nil && n != 2 {
				err = fmt.Errorf("%d rows are left", n)
			}
			return err
		}, nil},
		{"at a statement", func(ctx context.Context, tx *db.Tx) error {
			n, err := tx.Exec(ctx, `update items set n = n + 10`)
			if err == nil && n != 2 {
				err = fmt.Errorf("%d rows are left", n)
			}
			return err
		}, nil},
		{"when it is waited for", func(ctx context.Context, tx *db.Tx) error { return tx.Await(ctx) }, nil},
		{"an error of reading them is that of the statement", func(ctx context.Context, tx *db.Tx) error { return tx.Await(ctx) }, failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := d.Once(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				got, err := read(ctx, tx, tt.scanErr)
				if err != nil {
					return err
				}
				if err := tx.ExecLater(ctx, `delete from items where n = 3`); err != nil {
					return err
				}
				if err := tt.answer(ctx, tx); err != nil {
					return err
				}
				if !slices.Equal(got(), []int{2, 3}) {
					t.Errorf("%v were read, want 2 and 3", got())
				}
				return failed // as it was, for the next
			})
			if !errors.Is(err, failed) {
				t.Error(err)
			}
		})
	}
}

// A lock that goes together with a query is had before the query reads.
func TestTx_QueryLater_that_waits_for_a_lock(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Log("SQLite: transactions wait before they begin")
		return
	}
	d := numbered(t, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	locked, first := make(chan int), make(chan error, 1)
	go func() {
		first <- d.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
			var pid int
			if err := tx.QueryRow(ctx, `update items set n = n + 1 where name = '1' returning pg_backend_pid()`).Scan(&pid); err != nil {
				return err
			}
			locked <- pid
			for waits := false; !waits; {
				if err := tx.QueryRow(ctx, `select exists (select 1 from pg_locks where $1 = any(pg_blocking_pids(pid)))`, pid).Scan(&waits); err != nil {
					return err
				}
			}
			return tx.InsertAll(ctx, "items", "", db.Column{Name: "name", Values: []string{"2"}}, db.Column{Name: "n", Values: []int64{7}})
		})
	}()
	<-locked
	var under, n int64
	err := d.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
		err := tx.QueryLater(ctx, func(row db.Scanner) error { return row.Scan(&under) }, `select n from items where name = '1'`+tx.ForUpdate())
		return errors.Join(err, tx.QueryRow(ctx, `select count(*) from items`).Scan(&n))
	})
	if err := errors.Join(err, <-first); err != nil || under != 2 || n != 2 {
		t.Errorf("under the lock n = %d, and %d rows, %v; want 2 and 2: what the lock has waited for", under, n, err)
	}
}

// A transaction that has lost a statement does not say that what was sent is there.
func TestTx_Await_of_a_lost_transaction(t *testing.T) {
	t.Parallel()
	d, failed := numbered(t, "a"), errors.New("cannot be read")
	err := d.Once(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		err := tx.QueryLater(ctx, func(db.Scanner) error { return failed }, `select n from items`)
		if err = errors.Join(err, tx.Await(ctx)); !errors.Is(err, failed) {
			t.Errorf("Await = %v, want the error of reading", err)
		}
		if !dbtest.Postgres() {
			return err
		}
		if err := errors.Join(tx.ExecLater(ctx, `delete from items`), tx.Await(ctx)); !errors.Is(err, failed) {
			t.Errorf("Await once more = %v, want the same", err)
		}
		return err
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
}
