package db_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
)

// deaf stands before a server and can stop passing on what the connections that are open then
// send: it still takes it, as a pooler that hangs does, so that TCP sees nothing wrong.
type deaf struct {
	t      *testing.T
	addr   string
	target string
	all    sync.WaitGroup

	mu    sync.Mutex
	hears []*atomic.Bool
	conns []net.Conn
}

func newDeaf(t *testing.T, target string) *deaf {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &deaf{t: t, addr: l.Addr().String(), target: target}
	d.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			d.all.Go(func() { d.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		d.mu.Lock()
		for _, c := range d.conns {
			_ = c.Close()
		}
		d.mu.Unlock()
		d.all.Wait()
	})
	return d
}

func (d *deaf) serve(conn net.Conn) {
	defer conn.Close()
	server, err := net.Dial("tcp", d.target)
	if err != nil {
		d.t.Error(err)
		return
	}
	hears := &atomic.Bool{}
	hears.Store(true)
	d.mu.Lock()
	d.hears, d.conns = append(d.hears, hears), append(d.conns, conn)
	d.mu.Unlock()
	d.all.Go(func() { _, _ = io.Copy(conn, server) })
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if hears.Load() && n > 0 {
			_, _ = server.Write(buf[:n])
		}
		if err != nil {
			_ = server.Close()
			return
		}
	}
}

// hear sets whether the connections that are open now are listened to.
func (d *deaf) hear(yes bool) (conns int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.hears {
		h.Store(yes)
	}
	return len(d.conns)
}

// through opens a database behind one that may turn deaf.
func through(t *testing.T) (*db.DB, *deaf) {
	if !dbtest.Postgres() {
		t.Skip("SQLite has no connections that break; make test-real runs this")
	}
	u, err := url.Parse(os.Getenv("DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	door := newDeaf(t, u.Host)
	u.Host = door.addr
	d, err := db.Open(db.Config{URL: u.String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, door
}

// A server that hangs costs one short wait, however many connections the pool has left from
// before.
func TestDB_throws_away_connections_that_nobody_answers(t *testing.T) {
	t.Parallel()
	d, door := through(t)
	d.AskAlways()
	const many = 8
	var together, done sync.WaitGroup
	together.Add(many)
	for range many {
		done.Go(func() {
			err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				together.Done()
				together.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if conns := door.hear(false); conns < many {
		t.Fatalf("%d connections, want %d", conns, many)
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 4*db.PingTimeout)
	defer cancel()
	for range many {
		if err := d.Ping(ctx); err != nil {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	}
	if took := time.Since(begun); took > 2*db.PingTimeout {
		t.Errorf("it took %v, which is more than two waits of %v", took, db.PingTimeout)
	}
}

// What is in the air when the server falls silent ends with an error, and so its caller can try
// again: the relay, for one, would wait for ever.
func TestDB_statement_without_an_answer_ends(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(context.Context, *db.DB) error{
		"Ping": func(ctx context.Context, d *db.DB) error { return d.Ping(ctx) },
		"Exec": func(ctx context.Context, d *db.DB) error { _, err := d.Exec(ctx, `select 1`); return err },
		"QueryRow": func(ctx context.Context, d *db.DB) error {
			var one int
			return d.QueryRow(ctx, `select 1`).Scan(&one)
		},
		"Query": func(ctx context.Context, d *db.DB) error {
			rows, err := d.Query(ctx, `select 1`)
			if err == nil {
				defer rows.Close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, door := through(t)
			d.SetBound(500 * time.Millisecond)
			if err := run(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			door.hear(false)
			if err := run(t.Context(), d); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
			door.hear(true)
			if err := run(t.Context(), d); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
