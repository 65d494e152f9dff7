//go:build unix

package faults_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// recorder is a broker that notes the versions of what it gets.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (p *recorder) Publish(_ context.Context, window []event.Record) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rec := range window {
		for _, h := range rec.Headers {
			if h.Key == event.HeaderAggregateVersion {
				p.seen = append(p.seen, string(h.Value))
			}
		}
	}
	return nil
}

func (p *recorder) versions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// TestF25_InterleavedTransactions: the events of one key go out in the order of the commits,
// although the later one is of the older transaction, and a third one stays open.
func TestF25_InterleavedTransactions(t *testing.T) {
	r := newRig(t, withDB...)
	d, err := db.Open(db.Config{URL: r.directURL("order")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := codec.New(codec.Config{URL: r.registryURL, Store: d}, schemas.OrderCancelled{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Migrate(r.ctx, outbox.Migrations); err != nil {
		t.Fatal(err)
	}
	for _, do := range []string{"create table aggregate (id text primary key)", "insert into aggregate values ('key')"} {
		if _, err := d.Exec(r.ctx, do); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Verify(r.ctx); err != nil {
		t.Fatal(err)
	}
	box := outbox.New(d, c, outbox.Config{Source: "/order"})
	append := func(ctx context.Context, tx *db.Tx, version int64) error {
		if _, err := tx.Exec(ctx, "select 1 from aggregate where id = 'key' for update"); err != nil {
			return err
		}
		return box.Append(ctx, tx, version, event.Because("key", string(rune('a'+version))), schemas.OrderCancelled{OrderID: "key", Reason: schemas.CancellationReasonCustomer})
	}
	number := func(ctx context.Context, tx *db.Tx) error { // draws the transaction's number
		_, err := tx.Exec(ctx, "select pg_current_xact_id()")
		return err
	}
	// C stays open around all; B has the older number, and commits behind A.
	err = d.Once(r.ctx, func(ctx context.Context, open *db.Tx) error {
		err := d.Once(ctx, func(ctx context.Context, b *db.Tx) error {
			if err := number(ctx, b); err != nil {
				return err
			}
			if err := number(ctx, open); err != nil {
				return err
			}
			if err := d.Once(ctx, func(ctx context.Context, a *db.Tx) error { return append(ctx, a, 1) }); err != nil {
				return err
			}
			return append(ctx, b, 2)
		})
		if err != nil {
			return err
		}
		r.judgeInterleaved(d, box)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.row.Lost = "nothing"
	r.note(1, "ours in the order of commits; by xmin only the second was to be seen")
}

// judgeInterleaved wants the popular query to get it wrong, which shows that there is
// something to get wrong, and the relay to get it right.
func (r *rig) judgeInterleaved(d *db.DB, box *outbox.Outbox) {
	r.Helper()
	ids := func(query string) (all []int64) {
		rows, err := d.Query(r.ctx, query)
		if err != nil {
			r.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				r.Fatal(err)
			}
			all = append(all, id)
		}
		return all
	}
	all := ids("select id from outbox order by id")
	byXmin := ids("select id from outbox where xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint order by id")
	if len(all) != 2 || !slices.Equal(byXmin, all[1:]) {
		r.Fatalf("rows %v, by xmin %v: the transactions have not interleaved as they should", all, byXmin)
	}
	broker := &recorder{}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() { done <- box.Relay(ctx, broker) }()
	eventually(r, "both events are published", func() bool { return len(broker.versions()) >= 2 })
	cancel()
	if err := <-done; err != nil {
		r.Error(err)
	}
	if diff := cmp.Diff([]string{"1", "2"}, broker.versions()); diff != "" {
		r.Errorf("versions as they were published (-want +got):\n%s", strings.TrimSpace(diff))
	}
}
