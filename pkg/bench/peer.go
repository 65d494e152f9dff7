package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

// What the shops of the others have in common: the business, in few statements over pgx, so that
// they differ from ours and from each other in how events travel. They know the way of an order
// that is confirmed, and no other.

// peerTables are theirs. A key is unique only where the shop promises so.
const peerTables = `
create table orders (order_id text primary key, customer_id text not null, customer_email text not null, currency text not null,
	lines jsonb not null, total_cents bigint not null, status text not null, placed_at timestamptz not null, idempotency_key text not null);
create table stock (sku text primary key, on_hand bigint not null, reserved bigint not null);
create table reservation (order_id text primary key, lines jsonb not null);
create table mail (order_id text primary key, address text not null, sent_at timestamptz not null)`

// Their events, as JSON.
type (
	placedEvent struct {
		OrderID string       `json:"order_id"`
		Lines   []order.Line `json:"lines"`
	}
	reservedEvent struct {
		OrderID string `json:"order_id"`
	}
	confirmedEvent struct {
		OrderID       string `json:"order_id"`
		CustomerEmail string `json:"customer_email"`
		TotalCents    int64  `json:"total_cents"`
		Currency      string `json:"currency"`
	}
)

// querier is a pool, whose statements are transactions of their own, or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// peerOrder is an order that was placed.
type peerOrder struct {
	order.Draft
	id, key string
}

// insertOrder reports whether the order was written: not, if its key must be and is not unique.
func insertOrder(ctx context.Context, q querier, o peerOrder) (placed bool, err error) {
	var total int64
	for _, l := range o.Lines {
		total += int64(l.Quantity) * l.UnitPriceCents
	}
	tag, err := q.Exec(ctx, `insert into orders (order_id, customer_id, customer_email, currency, lines, total_cents, status, placed_at, idempotency_key)
		values ($1, $2, $3, $4, $5, $6, 'pending', now(), $7) on conflict do nothing`, o.id, o.CustomerID, o.CustomerEmail, o.Currency, o.Lines, total, o.key)
	if err != nil {
		return false, fmt.Errorf("insert an order: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// errShort is the error of an order that would have to be rejected.
var errShort = errors.New("out of stock")

// reserve takes all lines in one round trip. Sorted, two orders never wait for each other.
func reserve(ctx context.Context, tx pgx.Tx, p placedEvent) error {
	slices.SortFunc(p.Lines, func(a, b order.Line) int { return strings.Compare(a.SKU, b.SKU) })
	var batch pgx.Batch
	for _, l := range p.Lines {
		batch.Queue(`update stock set reserved = reserved + $2 where sku = $1 and on_hand - reserved >= $2`, l.SKU, l.Quantity).Exec(func(t pgconn.CommandTag) error {
			if t.RowsAffected() == 0 {
				return fmt.Errorf("%s: %w", l.SKU, errShort)
			}
			return nil
		})
	}
	batch.Queue(`insert into reservation (order_id, lines) values ($1, $2)`, p.OrderID, p.Lines)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	return nil
}

func confirm(ctx context.Context, q querier, id string) (confirmedEvent, error) {
	c := confirmedEvent{OrderID: id}
	err := q.QueryRow(ctx, `update orders set status = 'confirmed' where order_id = $1 returning customer_email, total_cents, currency`, id).
		Scan(&c.CustomerEmail, &c.TotalCents, &c.Currency)
	if err != nil {
		return c, fmt.Errorf("confirm: %w", err)
	}
	return c, nil
}

func noteMail(ctx context.Context, q querier, c confirmedEvent) error {
	if _, err := q.Exec(ctx, `insert into mail (order_id, address, sent_at) values ($1, $2, now())`, c.OrderID, c.CustomerEmail); err != nil {
		return fmt.Errorf("note a mail: %w", err)
	}
	return nil
}

// servePeer serves the routes that customers and suppliers use, until ctx ends. place returns
// once the order is durable.
func servePeer(ctx context.Context, pool *pgxpool.Pool, opened func(shopAddrs), place func(context.Context, peerOrder) (id string, err error)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/orders", func(w http.ResponseWriter, r *http.Request) {
		o := peerOrder{key: r.Header.Get("Idempotency-Key")}
		if err := json.NewDecoder(r.Body).Decode(&o.Draft); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id, err := uuid.NewV7()
		if err == nil {
			o.id = id.String()
			o.id, err = place(r.Context(), o)
		}
		answer(w, http.StatusAccepted, map[string]string{"order_id": o.id, "status": "pending"}, err)
	})
	mux.HandleFunc("POST /v1/stock/{sku}/receipts", func(w http.ResponseWriter, r *http.Request) {
		var receipt struct{ Quantity int64 }
		err := json.NewDecoder(r.Body).Decode(&receipt)
		if err == nil {
			_, err = pool.Exec(r.Context(), `insert into stock values ($1, $2, 0) on conflict (sku) do update set on_hand = stock.on_hand + $2`, r.PathValue("sku"), receipt.Quantity)
		}
		answer(w, http.StatusCreated, receipt, err)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	opened(shopAddrs{ln.Addr().String(), ln.Addr().String()})
	return serveUntil(ctx, ln, mux)
}

// serveUntil serves until ctx ends; its clients have gone by then.
func serveUntil(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, status int, body any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a customer that has gone can ask again
}

// peerTopics are the topics of a shop of the others.
type peerTopics struct{ orders, inventory string }

func topicsOf(cfg shopConfig) peerTopics {
	return peerTopics{cfg.Prefix + "-" + schemas.TopicOrders, cfg.Prefix + "-" + schemas.TopicInventory}
}
