package idempotency_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/idempotency"
)

var errBad = errors.New("bad work")

// shop is a batch whose work is a number, and which holds the first transaction up until the
// others have come.
type shop struct {
	*idempotency.Batch[int64]
	db     *db.DB
	keys   *idempotency.Keys
	mu     sync.Mutex
	groups [][]int64
	first  chan struct{} // closed: the first transaction goes on
}

func newShop(t *testing.T, ttl time.Duration) *shop {
	return newShopOn(dbtest.Open(t, idempotency.Migrations, tables), ttl)
}

func newShopOn(d *db.DB, ttl time.Duration) *shop {
	s := &shop{db: d, first: make(chan struct{})}
	s.keys = idempotency.New(s.db, ttl)
	s.Batch = idempotency.NewBatch(s.keys, s.write)
	return s
}

func (s *shop) write(ctx context.Context, tx *db.Tx, work []int64) error {
	s.mu.Lock()
	s.groups = append(s.groups, slices.Clone(work))
	first := len(s.groups) == 1
	s.mu.Unlock()
	if first {
		<-s.first
	}
	if slices.Contains(work, 13) {
		return errBad
	}
	return tx.InsertAll(ctx, "effect", "", db.Column{Name: "n", Values: work})
}

// begun waits for the first transaction.
func (s *shop) begun() {
	begun := func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.groups) > 0 }
	for !begun() {
		<-time.After(time.Millisecond)
	}
}

func (s *shop) ask(key, fingerprint string, n int64, refused error) string {
	a, replayed, err := s.Do(context.Background(), key, []byte(fingerprint), n, answerOf(n), refused)
	return said(string(a.Body), replayed, err)
}

func said(body any, replayed bool, err error) string {
	return fmt.Sprintf("%v %v %v", body, replayed, err)
}

func answerOf(n int64) idempotency.Answer {
	return idempotency.Answer{Status: 202, Location: "/x", Body: fmt.Appendf(nil, "%d", n)}
}

func (s *shop) sum(t *testing.T) (n int64) {
	t.Helper()
	if err := s.db.QueryRow(t.Context(), `select coalesce(sum(n), 0) from effect`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBatch(t *testing.T) {
	t.Parallel()
	t.Run("each request is done once and has its own answer, in few transactions", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, time.Hour)
		var wg sync.WaitGroup
		for n := range int64(100) {
			if n == 13 {
				continue
			}
			wg.Go(func() {
				if got, want := s.ask(fmt.Sprint("k", n), "print", n, nil), said(n, false, nil); got != want {
					t.Errorf("request %d = %s, want %s", n, got, want)
				}
			})
		}
		close(s.first)
		wg.Wait()
		if got, want := s.sum(t), int64(99*100/2-13); got != want {
			t.Errorf("the effects add up to %d, want %d", got, want)
		}
	})
	t.Run("twins, those of other requests, and one that fails, beside good ones", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() { s.ask("first", "print", 1, nil) })
		s.begun()
		got := make([]string, 40)
		for i := range got {
			wg.Go(func() {
				switch key := fmt.Sprint("k", i/4); i % 4 {
				case 0, 1:
					got[i] = s.ask(key, "print", 100+int64(i/4), nil)
				case 2:
					got[i] = s.ask(key+"x", "print", 1000, nil)
				case 3:
					got[i] = s.ask(key+"bad", "print", 13, nil)
				}
			})
		}
		close(s.first)
		wg.Wait()
		for i := range 10 {
			twins := []string{got[4*i], got[4*i+1]}
			slices.Sort(twins)
			want := []string{said(100+i, false, nil), said(100+i, true, nil)}
			if diff := cmp.Diff(want, twins); diff != "" {
				t.Errorf("twins (-want +got):\n%s", diff)
			}
			if got[4*i+2] != said(1000, false, nil) || got[4*i+3] != said("", false, errBad) {
				t.Errorf("beside it: %s, %s", got[4*i+2], got[4*i+3])
			}
		}
		if got, want := s.sum(t), int64(1+10*1000+1045); got != want {
			t.Errorf("the effects add up to %d, want %d", got, want)
		}
		if got := s.ask("k1bad", "print", 7, nil); got != said(7, false, nil) {
			t.Errorf("a key whose work has failed: %s, want it done", got)
		}
	})
	for _, tt := range []struct {
		name   string
		breaks bool // the transaction, behind the work
	}{{"twins that share a transaction are done once", false}, {"so they are if it fails behind their work", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			d, err := db.Open(db.Config{URL: dbtest.URL(t), Wrap: dbtest.Breaks{Statement: func(query string, _ []driver.NamedValue, inTx bool) error {
				if tt.breaks && inTx && strings.Contains(query, "from idempotency") && broken.CompareAndSwap(false, true) {
					return errBad
				}
				return nil
			}}.Wrap})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.Migrate(t.Context(), idempotency.Migrations, tables); err != nil {
				t.Fatal(err)
			}
			s := newShopOn(d, time.Hour)
			var wg sync.WaitGroup
			wg.Go(func() { s.ask("first", "print", 1, nil) })
			s.begun()
			for range 40 {
				wg.Go(func() {
					got := s.ask("k", "print", 100, nil)
					if alone := strings.Contains(got, errBad.Error()); got != said(100, false, nil) && got != said(100, true, nil) && !alone {
						t.Errorf("a twin = %s", got)
					}
				})
			}
			close(s.first)
			wg.Wait()
			if got := s.sum(t); got != 101 {
				t.Errorf("the effects add up to %d, want 101", got)
			}
		})
	}
	t.Run("a known key has its answer, whatever speaks against the request now", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, time.Hour)
		close(s.first)
		refused := errors.New("overloaded")
		for _, tt := range []struct {
			what, key, print string
			n                int64
			refused          error
			want             string
		}{
			{"refused", "k", "print", 1, refused, said("", false, refused)},
			{"the first", "k", "print", 2, nil, said(2, false, nil)},
			{"again", "k", "print", 3, nil, said(2, true, nil)},
			{"again, refused", "k", "print", 0, refused, said(2, true, nil)},
			{"another request", "k", "other", 4, nil, said("", false, idempotency.ErrMismatch)},
			{"another request, refused", "k", "other", 0, refused, said("", false, idempotency.ErrMismatch)},
		} {
			if got := s.ask(tt.key, tt.print, tt.n, tt.refused); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
			}
		}
		if got := s.sum(t); got != 2 {
			t.Errorf("the effects add up to %d, want 2", got)
		}
	})
	t.Run("an expired key is forgotten", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, -time.Second)
		close(s.first)
		s.ask("k", "print", 1, nil)
		if got := s.ask("k", "other", 2, nil); got != said(2, false, nil) {
			t.Errorf("the second request = %s", got)
		}
		if got := s.ask("k", "other", 0, errBad); got != said("", false, errBad) {
			t.Errorf("a refused one = %s", got)
		}
	})
	t.Run("a request whose client is gone is done all the same", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, time.Hour)
		close(s.first)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := s.Do(ctx, "k", []byte("print"), 5, answerOf(5), nil); err != nil || s.sum(t) != 5 {
			t.Errorf("Do = %v, the effects add up to %d", err, s.sum(t))
		}
	})
	t.Run("a twin in another process that takes long holds nobody else up", func(t *testing.T) {
		t.Parallel()
		if !dbtest.Postgres() {
			t.Log("SQLite: a twin waits for the writer, under its context")
			return
		}
		s := newShop(t, time.Hour)
		begun, end := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := s.keys.Do(t.Context(), "twin", []byte("print"), func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
				close(begun)
				<-end
				return answerOf(1), nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-begun
		close(s.first)
		for n := range int64(10) {
			wg.Go(func() {
				if got := s.ask(fmt.Sprint("k", n), "print", n, nil); got != said(n, false, nil) {
					t.Errorf("request %d = %s", n, got)
				}
			})
		}
		if got := s.ask("twin", "print", 99, nil); got != said("", false, idempotency.ErrInFlight) {
			t.Errorf("the twin = %s", got)
		}
		close(end)
		wg.Wait()
		if got := s.ask("twin", "print", 99, nil); got != said(1, true, nil) {
			t.Errorf("afterwards the twin = %s", got)
		}
	})
}

// No client can end a transaction that it shares, so that it ends by itself.
func TestBatch_a_transaction_has_half_a_minute(t *testing.T) {
	t.Parallel()
	var left time.Duration
	b := idempotency.NewBatch(idempotency.New(dbtest.Open(t, idempotency.Migrations, tables), time.Hour), func(ctx context.Context, _ *db.Tx, _ []int64) error {
		until, _ := ctx.Deadline()
		left = time.Until(until)
		return nil
	})
	if _, _, err := b.Do(t.Context(), "k", []byte("print"), 1, answerOf(1), nil); err != nil {
		t.Fatal(err)
	}
	if left <= 0 || left > 30*time.Second {
		t.Errorf("%v are left, want at most 30 s", left)
	}
}
