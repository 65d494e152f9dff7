package eventtest_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
)

// The schedules, by their names.
const (
	atOnce     = "all at once"
	twice      = "each twice in a row"
	again      = "everything again later"
	killed     = "killed and started again"
	rebalanced = "rebalanced"
	shuffled   = "out of order across keys"
)

// The example has no mistake to find.
func TestExample(t *testing.T) {
	t.Parallel()
	testHandlers(t)
}

// Each schedule finds the mistakes that it is there for, and no others.
func TestTrial(t *testing.T) {
	t.Parallel()
	shelves := func(r *eventtest.Rig) any { return r.Rows(`select sku, pieces from shelf order by sku`) }
	for _, tt := range []struct {
		name    string
		service eventtest.Service
		state   func(*eventtest.Rig) any
		finds   []string // the schedules that must
		may     []string // those that sometimes do
	}{
		{
			name: "an effect outside the transaction", finds: []string{killed},
			service: handled(func(s *wrong, ctx context.Context, tx *db.Tx, e event.Event[Moved]) error {
				if err := s.mail(e.Data); err != nil {
					return err
				}
				return s.onMoved(ctx, tx, e)
			}),
			state: mails,
		},
		{
			name: "a count in memory", finds: []string{killed, rebalanced},
			service: handled(func(s *wrong, _ context.Context, _ *db.Tx, e event.Event[Moved]) error {
				s.memory.add(e.Data)
				return nil
			}),
			state: func(r *eventtest.Rig) any { return eventtest.Get[any](r, "/memory") },
		},
		{
			name: "an effect that builds on the order across keys", finds: []string{shuffled}, may: []string{atOnce, twice, again, killed, rebalanced},
			service: handled(func(_ *wrong, ctx context.Context, tx *db.Tx, e event.Event[Moved]) error {
				_, err := tx.Exec(ctx, `insert into shelf (sku, pieces, version) values ($1, (select 31 * coalesce(sum(pieces), 0) + $2 from shelf), 1)
					on conflict (sku) do update set pieces = excluded.pieces`, e.Data.SKU, e.Data.Pieces)
				return err
			}),
			state: shelves,
		},
		{
			name: "events with IDs at random", finds: []string{atOnce, twice, again, killed, rebalanced, shuffled},
			service: handled(func(s *wrong, ctx context.Context, tx *db.Tx, e event.Event[Moved]) error {
				return s.outbox.Append(ctx, tx, 1, event.Because(rand.Text()), Counted{SKU: e.Data.SKU})
			}),
			state: shelves,
		},
		{
			name: "no inbox", finds: []string{twice, again, killed}, may: []string{rebalanced},
			service: eventtest.NewService("shelf", runWithoutInbox), state: shelves,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eventtest.Trial{Contract: contract, Service: tt.service, Source: "/door", Events: moves, State: tt.state, Shuffles: 1}.Each(t, func(t *testing.T, schedule, diff string) {
				switch {
				case slices.Contains(tt.finds, schedule) && !strings.Contains(diff, schedule):
					t.Errorf("the schedule finds %q, want the difference, with its name", diff)
				case !slices.Contains(append(tt.finds, tt.may...), schedule) && diff != "":
					t.Error(diff)
				}
			})
		})
	}
}
