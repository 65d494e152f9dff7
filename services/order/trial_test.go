package order_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/services/order"
)

// However inventory's answers arrive, the orders go the same way and say so once.
func TestTrial(t *testing.T) {
	t.Parallel()
	var ids []string
	for n := range 4 {
		ids = append(ids, fmt.Sprintf("00000000-0000-7000-8000-%012d", n))
	}
	eventtest.Trial{
		Contract: contract,
		Service:  eventtest.NewService("order", order.Run, "ORDER_DEADLINE", "1h"),
		Source:   "/inventory",
		Prepare: func(r *eventtest.Rig) {
			for _, id := range ids {
				o, _, err := order.Place(id, draft, time.Now())
				if err == nil {
					err = r.DB.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) error { return order.Insert(ctx, tx, o) })
				}
				if err != nil {
					r.Fatal(err)
				}
			}
		},
		Events: []event.Payload{
			reserved(ids[0]), rejected(ids[1]), rejected(ids[2]), reserved(ids[2]), reserved(ids[3]), released(ids[0]), released(ids[1]), rejected(ids[3]),
		},
		State: func(r *eventtest.Rig) any {
			steps := map[string][]order.Step{}
			for _, id := range ids {
				steps[id] = eventtest.Get[struct{ History []order.Step }](r, "/v1/orders/"+id).History
				for i := range steps[id] {
					steps[id][i].At = time.Time{}
				}
			}
			return []any{steps, r.Rows(`select order_id, status, reason, version from orders order by order_id`)}
		},
	}.Run(t)
}
