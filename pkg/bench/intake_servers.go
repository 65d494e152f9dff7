package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

// ordersTold is what the process of an intake needs to know.
type ordersTold struct{ Database, Broker, Group, Registry string }

// serveOrders is the order service as it is, on a free port.
func serveOrders(ctx context.Context, told ordersTold, say func(any) error) error {
	cfg, err := service.Parse[order.Config](map[string]string{
		"DATABASE_URL": told.Database, "KAFKA_BROKERS": told.Broker, "KAFKA_GROUP": told.Group, "SCHEMA_REGISTRY_URL": told.Registry,
		// Nobody answers the orders, and that must not be a reason to refuse more.
		"ORDER_DEADLINE": "1h", "OVERLOAD_LAG": "1h", "OVERLOAD_OUTBOX_AGE": "1h", "LOG_LEVEL": "error",
	})
	if err != nil {
		return err
	}
	if cfg.Service.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	if cfg.Service.AdminListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	if err := say(cfg.Service.Listener.Addr().String()); err != nil {
		return err
	}
	return order.Run(ctx, cfg)
}

// plainIntake takes orders as most services do: one transaction per request, of three inserts.
type plainIntake struct {
	pool  *pgxpool.Pool
	codec *codec.Codec
}

// plainTables are what it needs beside an outbox.
const plainTables = `create table orders (id text primary key, customer_id text not null, customer_email text not null,
		currency text not null, lines jsonb not null, total_cents bigint not null, status text not null, placed_at timestamptz not null);
	create index on orders (customer_id, id);
	create table idempotency (key text primary key, status int not null, location text not null, body bytea not null,
		at timestamptz not null default now())`

// servePlainOrders serves it, with a SKIP LOCKED poller beside.
func servePlainOrders(ctx context.Context, told ordersTold, say func(any) error) error {
	d, err := openTables(ctx, told.Database)
	if err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return err
	}
	pool, err := newPool(ctx, told.Database, poolConns)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, plainTables); err != nil {
		return err
	}
	p := &plainIntake{pool: pool}
	if p.codec, err = newCodec(ctx, told.Registry); err != nil {
		return err
	}
	relay, err := newPoller(ctx, told.Database, told.Broker)
	if err != nil {
		return err
	}
	defer relay.close(ctx)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := say(ln.Addr().String()); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("POST /v1/orders", p)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return relay.run(ctx) })
	group.Go(func() error { return serveUntil(ctx, ln, mux) })
	return group.Wait()
}

// stored is an answer.
type stored struct {
	status   int
	location string
	body     []byte
}

func (p *plainIntake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	var d order.Draft
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, 256<<10))
	in.DisallowUnknownFields()
	if err := in.Decode(&d); err != nil || key == "" || len(d.Lines) == 0 {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	var s stored
	err := pgx.BeginFunc(r.Context(), p.pool, func(tx pgx.Tx) (err error) {
		s, err = p.place(r.Context(), tx, key, d)
		return err
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", s.location)
	w.WriteHeader(s.status)
	_, _ = w.Write(s.body) // a client that has gone needs no answer
}

// place inserts the key with the answer, the order, and its event.
func (p *plainIntake) place(ctx context.Context, tx pgx.Tx, key string, d order.Draft) (s stored, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return s, err
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	placed := schemas.OrderPlaced{
		OrderID: id.String(), CustomerID: d.CustomerID, CustomerEmail: d.CustomerEmail, Currency: d.Currency, PlacedAt: at,
	}
	for _, l := range d.Lines {
		placed.Lines = append(placed.Lines, schemas.OrderLine{SKU: l.SKU, Quantity: l.Quantity, UnitPriceCents: l.UnitPriceCents})
	}
	s = stored{http.StatusAccepted, "/v1/orders/" + placed.OrderID, fmt.Appendf(nil, `{"order_id":%q,"status":"pending"}`, placed.OrderID)}
	fresh, err := tx.Exec(ctx, `insert into idempotency (key, status, location, body) values ($1, $2, $3, $4) on conflict do nothing`,
		key, s.status, s.location, s.body)
	if err != nil {
		return s, err
	}
	if fresh.RowsAffected() == 0 {
		err = tx.QueryRow(ctx, `select status, location, body from idempotency where key = $1`, key).Scan(&s.status, &s.location, &s.body)
		return s, err
	}
	_, err = tx.Exec(ctx, `insert into orders (id, customer_id, customer_email, currency, lines, total_cents, status, placed_at)
		values ($1, $2, $3, $4, $5, $6, 'pending', $7)`,
		placed.OrderID, d.CustomerID, d.CustomerEmail, d.Currency, d.Lines, total(placed), at)
	if err != nil {
		return s, err
	}
	value, err := p.codec.Encode(placed)
	if err != nil {
		return s, err
	}
	meta := event.Meta{
		ID: event.NewID("/order", event.Because(placed.OrderID, key), orderPlaced, 0), Type: orderPlaced, Source: "/order",
		Subject: placed.OrderID, Time: at, Version: 1,
	}
	_, err = tx.Exec(ctx, insertOutbox, placed.Topic(), []byte(placed.OrderID), value, event.AppendHeaders(nil, meta.Headers()))
	return s, err
}
