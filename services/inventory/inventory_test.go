package inventory_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
	"example.com/keyline/services/inventory"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func shelf(of ...inventory.Stock) inventory.Shelf {
	s := inventory.Shelf{}
	for i := range of {
		s[of[i].SKU] = &of[i]
	}
	return s
}

func TestShelf_Reserve(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		lines   []string
		missing []schemas.MissingLine
	}{
		{"a line that is there", []string{"3 tea"}, nil},
		{"the last piece", []string{"7 tea", "1 cup"}, nil},
		{"one too many", []string{"8 tea"}, []schemas.MissingLine{{SKU: "tea", Requested: 8, Available: 7}}},
		{"an article that is not there", []string{"1 moon"}, []schemas.MissingLine{{SKU: "moon", Requested: 1}}},
		{"all or none", []string{"1 tea", "2 cup", "1 moon"}, []schemas.MissingLine{{SKU: "cup", Requested: 2, Available: 1}, {SKU: "moon", Requested: 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := shelf(inventory.Stock{SKU: "tea", Version: 4, OnHand: 10, Reserved: 3}, inventory.Stock{SKU: "cup", Version: 1, OnHand: 1})
			before := map[string]inventory.Stock{"tea": *s["tea"], "cup": *s["cup"]}
			o := order("o-1", tt.lines...)
			r, moved, missing := s.Reserve(o, noon)
			if diff := cmp.Diff(missing, tt.missing); diff != "" || r.Version != 1 {
				t.Fatalf("Reserve = version %d, missing %s", r.Version, diff)
			}
			if missing != nil {
				if len(moved) > 0 || len(r.Lines) > 0 || *s["tea"] != before["tea"] || *s["cup"] != before["cup"] {
					t.Errorf("a refused order holds %v after %v", r.Lines, moved)
				}
				return
			}
			for i, l := range o.Lines {
				want := inventory.Movement{
					SKU: l.SKU, Version: before[l.SKU].Version + 1, Kind: inventory.Reserved, Quantity: int64(l.Quantity),
					OrderID: "o-1", Cause: "cause", At: noon,
				}
				if diff := cmp.Diff(moved[i], want); diff != "" {
					t.Error(diff)
				}
				if got, want := s[l.SKU].Reserved, before[l.SKU].Reserved+int64(l.Quantity); got != want {
					t.Errorf("%s has %d reserved, want %d", l.SKU, got, want)
				}
			}
		})
	}
}

func TestShelf_Release(t *testing.T) {
	t.Parallel()
	s := shelf(inventory.Stock{SKU: "tea", OnHand: 10}, inventory.Stock{SKU: "cup", OnHand: 5})
	r, _, _ := s.Reserve(order("o-1", "3 tea", "2 cup"), noon)
	moved := s.Release(&r, noon)
	if len(moved) != 2 || s["tea"].Reserved != 0 || s["cup"].Reserved != 0 || r.Version != 2 || len(r.Lines) != 0 {
		t.Errorf("after the release: %+v, %+v, %+v, moved %v", s["tea"], s["cup"], r, moved)
	}
	if moved := s.Release(&r, noon); len(moved) != 0 {
		t.Errorf("a second release moves %v", moved)
	}
}

// The fold of any sequence of movements is the state that made them, and a later movement is
// never earlier.
func TestStock_fold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			s, fold := inventory.Stock{SKU: "tea"}, inventory.Stock{SKU: "tea"}
			clock, last := noon, time.Time{}
			for version := int64(1); version <= 500; version++ {
				kind, n := inventory.Received, rnd.Int64N(10)+1
				switch rnd.IntN(3) {
				case 0:
					if s.Available() > 0 {
						kind, n = inventory.Reserved, rnd.Int64N(s.Available())+1
					}
				case 1:
					if s.Reserved > 0 {
						kind, n = inventory.Released, rnd.Int64N(s.Reserved)+1
					}
				}
				clock = clock.Add(time.Duration(rnd.IntN(3000)-1000) * time.Millisecond) // it may go back
				m := s.Move(kind, n, "o-1", "cause", clock)
				if m.Version != version || m.At.Before(last) {
					t.Fatalf("movement %d has version %d, at %v after one at %v", version, m.Version, m.At, last)
				}
				last = m.At
				fold.Apply(m)
				if fold != s || s.Available() < 0 || s.Reserved < 0 {
					t.Fatalf("after %d movements the fold is %+v, the state %+v", version, fold, s)
				}
			}
		})
	}
}

func TestCheckOrder(t *testing.T) {
	t.Parallel()
	many := func(n int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprint("sku-", i))
		}
		return lines
	}
	for _, tt := range []struct {
		name string
		o    schemas.OrderPlaced
		want string // in the error; empty: none
	}{
		{"an order like ours", order("o-1", "3 tea", "cup"), ""},
		{"as many lines as may be", order("o-1", many(1000)...), ""},
		{"no line", order("o-1"), "lines"},
		{"too many lines", order("o-1", many(1001)...), "lines"},
		{"a SKU twice", order("o-1", "tea", "tea"), "lines[1].sku"},
		{"an empty SKU", order("o-1", ""), "lines[0].sku"},
		{"a SKU too long", order("o-1", strings.Repeat("x", 101)), "lines[0].sku"},
		{"bad UTF-8 in a SKU", order("o-1", "t\xffa"), "lines[0].sku"},
		{"a NUL in a SKU", order("o-1", "t\x00a"), "lines[0].sku"},
		{"quantity zero", order("o-1", "0 tea"), "lines[0].quantity"},
		{"a negative quantity", order("o-1", "cup", "-1 tea"), "lines[1].quantity"},
		{"a quantity too great", order("o-1", fmt.Sprint(inventory.MaxQuantity+1, " tea")), "lines[0].quantity"},
		{"the least quantity of all", order("o-1", fmt.Sprint(math.MinInt32, " tea")), "lines[0].quantity"},
		{"no order ID", order("", "tea"), "order_id"},
		{"a NUL in the order ID", order("o\x00", "tea"), "order_id"},
		{"an order ID too long", order(strings.Repeat("x", 101), "tea"), "order_id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := inventory.CheckOrder(event.Meta{Subject: tt.o.OrderID}, tt.o)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("CheckOrder = %v, want an error of %q", err, tt.want)
			}
		})
	}
	t.Run("an order under another's key", func(t *testing.T) {
		t.Parallel()
		if err := inventory.CheckOrder(event.Meta{Subject: "o-2"}, order("o-1", "tea")); err == nil || !strings.Contains(err.Error(), "key") {
			t.Errorf("CheckOrder = %v, want an error of the key", err)
		}
	})
}
