package inventory_test

import (
	"context"
	"log/slog"
	"testing"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/services/inventory"
)

// However orders and cancellations arrive, each reserves once, gives back once, and is
// answered once. There is enough for all, or for none: who is served when something runs out
// depends on the order across orders, which nothing promises.
func TestTrial(t *testing.T) {
	t.Parallel()
	eventtest.Trial{
		Contract: contract,
		Service:  eventtest.NewService("inventory", inventory.Run),
		Source:   "/order",
		Prepare: func(r *eventtest.Rig) {
			for _, sku := range []string{"tea", "cup"} {
				err := r.DB.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) error {
					_, err := inventory.New(r.DB, nil, slog.New(slog.DiscardHandler)).Receive(ctx, tx, sku, 100, "receipt")
					return err
				})
				if err != nil {
					r.Fatal(err)
				}
			}
		},
		Events: []event.Payload{
			order("o-1", "2 tea", "cup"), order("o-2", "3 tea"), order("o-3", "101 tea"), cancelled("o-1"), cancelled("o-4"),
			order("o-4", "cup"), order("o-5", "cup", "5 tea"), cancelled("o-3"), cancelled("o-5"),
		},
		State: func(r *eventtest.Rig) any {
			return []any{
				r.Rows(`select order_id, state, lines, version from reservation order by order_id`),
				r.Rows(`select sku, on_hand, reserved, version from stock order by sku`),
				r.Rows(`select sku, kind, quantity, order_id, cause from movement order by sku, kind, order_id, quantity, cause`),
			}
		},
	}.Run(t)
}
