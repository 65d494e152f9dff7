package inventory_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/event"
	"example.com/keyline/services/inventory"
)

// moment is what the stock was from a time on.
type moment struct {
	at    time.Time
	state string
}

func state(s *inventory.Stock) string {
	return fmt.Sprintf("%d/%d at version %d", s.OnHand, s.Reserved, s.Version)
}

// wantPast looks into the past at, right before, and between all the moments, which are in
// the order of their times.
func (r *rig) wantPast(sku string, moments []moment) {
	r.Helper()
	look := func(at time.Time, want string) {
		r.Helper()
		got, err := r.AsOf(r.Context(), sku, at)
		if err != nil {
			r.Fatal(err)
		}
		if state(got) != want {
			r.Errorf("at %v the stock was %s, want %s", at, state(got), want)
		}
	}
	before := "0/0 at version 0"
	for _, m := range moments {
		look(m.at.Add(-time.Microsecond), before)
		look(m.at, m.state)
		before = m.state
	}
	look(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), before)
	look(time.Unix(0, 0), "0/0 at version 0")
}

// wantFolds compares the stock and its snapshots with the fold of the ledger.
func (r *rig) wantFolds(sku string, snapshots int) {
	r.Helper()
	fold, folds := inventory.Stock{SKU: sku}, map[int64]string{}
	for i, m := range r.ledger(sku) {
		if m.Version != int64(i+1) || m.SKU != sku || m.Quantity < 1 || m.At.Before(fold.At) {
			r.Errorf("movement %d is %+v", i+1, m)
		}
		fold.Apply(m)
		folds[m.Version] = fmt.Sprintf("%d/%d at version %d, %v", fold.OnHand, fold.Reserved, fold.Version, m.At)
	}
	now, err := r.Current(r.Context(), sku)
	if err != nil || state(now) != state(&fold) {
		r.Errorf("the stock is %s, %v; the ledger's fold %s", state(now), err, state(&fold))
	}
	rows, err := r.DB.Query(r.Context(), `select version, on_hand, reserved, at from stock_snapshot where sku = $1 order by version`, sku)
	if err != nil {
		r.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var version, onHand, reserved, at int64
		if err := rows.Scan(&version, &onHand, &reserved, &at); err != nil {
			r.Fatal(err)
		}
		got := fmt.Sprintf("%d/%d at version %d, %v", onHand, reserved, version, time.UnixMicro(at).UTC())
		if got != folds[version] {
			r.Errorf("a snapshot is %s, the ledger's fold %s", got, folds[version])
		}
	}
	if rows.Err() != nil || n < snapshots {
		r.Errorf("%d snapshots, %v; want %d", n, rows.Err(), snapshots)
	}
}

// A random life of an article, by what the service is asked to do.
func TestLedger_life(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rnd := rand.New(rand.NewPCG(seed, 3))
			var early []inventory.Movement
			r.receive("tea", 5)
			moments := []moment{{r.ledger("tea")[0].At, "5/0 at version 1"}}
			for step, version := 0, int64(1); version <= 3*inventory.SnapshotEvery; step++ {
				// Each is one call of a handler, and so has one time.
				switch rnd.IntN(8) {
				case 0:
					r.receive("tea", 1+rnd.Int64N(60))
				case 1, 2, 3:
					r.take(cancelled(fmt.Sprintf("o-%d-%d", rnd.IntN(step+1), rnd.IntN(6)))) // one that may never have been
				default:
					var orders []event.Payload
					for i := range 6 {
						orders = append(orders, order(fmt.Sprintf("o-%d-%d", step, i), fmt.Sprint(1+rnd.IntN(4), " tea")))
					}
					r.take(orders...)
				}
				if step == 20 {
					early = r.ledger("tea")
				}
				now, err := r.Current(t.Context(), "tea")
				if err != nil || now.Available() < 0 || now.Reserved < 0 {
					t.Fatalf("after step %d the stock is %+v, %v", step, now, err)
				}
				newest, err := r.Movements(t.Context(), "tea", now.Version-1, 1)
				if err != nil {
					t.Fatal(err)
				}
				version = now.Version
				// Steps within one millisecond look like one.
				if n := len(moments); moments[n-1].at.Equal(newest[0].At) {
					moments = moments[:n-1]
				}
				moments = append(moments, moment{newest[0].At, state(now)})
			}
			r.wantFolds("tea", 3)
			r.wantPast("tea", moments)
			if diff := cmp.Diff(r.ledger("tea")[:len(early)], early); diff != "" {
				t.Errorf("the ledger's beginning has changed: %s", diff)
			}
		})
	}
}

// The ledger of a replica whose clock jumps: looked at from any time, the past is a beginning
// of the ledger, over snapshots that fall into the middle of transactions.
func TestLedger_past(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rnd := rand.New(rand.NewPCG(seed, 4))
			clock := noon
			var moments []moment
			for n := 0; n <= 4*inventory.SnapshotEvery; {
				clock = clock.Add(time.Duration(rnd.IntN(3000)-800) * time.Millisecond)
				err := r.Append(t.Context(), "tea", func(s *inventory.Stock) (moved []inventory.Movement) {
					moved = append(moved, s.Move(inventory.Received, 1+rnd.Int64N(5), "", "receipt", clock))
					for range rnd.IntN(12) {
						kind, quantity := inventory.Reserved, s.Available()
						if s.Reserved > 0 && rnd.IntN(2) == 0 {
							kind, quantity = inventory.Released, s.Reserved
						}
						if quantity > 0 {
							moved = append(moved, s.Move(kind, 1+rnd.Int64N(quantity), "o-1", "event", clock))
						}
					}
					n += len(moved)
					if len(moments) > 0 && moments[len(moments)-1].at.Equal(s.At) {
						moments = moments[:len(moments)-1]
					}
					moments = append(moments, moment{s.At, state(s)})
					return moved
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			r.wantFolds("tea", 4)
			r.wantPast("tea", moments)
			if !slices.IsSortedFunc(moments, func(a, b moment) int { return a.at.Compare(b.at) }) {
				t.Error("the moments are not sorted: the test is wrong")
			}
		})
	}
	t.Run("of an article that was never received there is no past", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if _, err := r.AsOf(t.Context(), "tea", noon); !errors.Is(err, inventory.ErrNotFound) {
			t.Errorf("AsOf = %v, want ErrNotFound", err)
		}
		if _, err := r.Movements(t.Context(), "tea", 0, 10); !errors.Is(err, inventory.ErrNotFound) {
			t.Errorf("Movements = %v, want ErrNotFound", err)
		}
	})
	t.Run("articles do not see each other's past", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 3)
		at := r.ledger("tea")[0].At
		r.receive("cup", 5)
		if got, err := r.AsOf(t.Context(), "tea", at.Add(time.Hour)); err != nil || state(got) != "3/0 at version 1" {
			t.Errorf("AsOf = %+v, %v", got, err)
		}
	})
}
