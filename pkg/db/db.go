package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Config says which database to open.
type Config struct {
	// URL is postgres://… or sqlite:<file>. A postgres URL may name a schema with
	// search_path=….
	URL string `env:"DATABASE_URL,required,notEmpty" expect:"postgres://… or sqlite:<file>"`
	// Wrap, if set, is put around what makes the pools' connections, such as to watch them or
	// to break them in a test.
	Wrap func(driver.Connector) driver.Connector `env:"-"`
}

// DB is a database of one service. It is safe for concurrent use.
type DB struct {
	write   *sql.DB
	read    *sql.DB // the same as write on PostgreSQL
	dialect dialect
	schema  string        // PostgreSQL's search_path, empty for the default
	file    string        // SQLite's
	rested  *rested       // PostgreSQL's
	bound   time.Duration // of a statement outside a transaction
}

const (
	postgresConns = 20
	// statementTimeout ends a statement outside a transaction. A server, or what stands before
	// it, that acknowledges what it is sent and never answers is noticed by nothing else.
	statementTimeout = 30 * time.Second
)

// Open prepares a connection pool and checks the URL. It connects to nothing: a database
// that is down shows in [DB.Ping] and in every other call. The URL's password is in no
// error.
func Open(cfg Config) (*DB, error) {
	if cfg.Wrap == nil {
		cfg.Wrap = func(c driver.Connector) driver.Connector { return c }
	}
	switch {
	case strings.HasPrefix(cfg.URL, "postgres://"), strings.HasPrefix(cfg.URL, "postgresql://"):
		return openPostgres(cfg.URL, cfg.Wrap)
	case strings.HasPrefix(cfg.URL, "sqlite:"):
		return openSQLite(strings.TrimPrefix(cfg.URL, "sqlite:"), cfg.Wrap)
	}
	return nil, fmt.Errorf("DATABASE_URL must begin with postgres:// or sqlite:, for example sqlite:./order.db")
}

func openPostgres(raw string, wrap func(driver.Connector) driver.Connector) (*DB, error) {
	conf, err := pgx.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL is not a valid postgres URL") // err would quote it
	}
	// A stopped process must not hold the others: the server ends a transaction that idles,
	// and a connection whose peer no longer acknowledges.
	conf.RuntimeParams["idle_in_transaction_session_timeout"] = "5000" // ms
	conf.RuntimeParams["tcp_user_timeout"] = "10000"                   // ms
	// What the planner knows of a table that fills and empties is from some other moment: it would
	// read all of an outbox that it saw empty. Every statement that runs often has an index, and one
	// plan for good; made anew for the values of each call it was a quarter of what they cost.
	conf.RuntimeParams["enable_seqscan"] = "off"
	conf.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	conf.RuntimeParams["jit"] = "off" // those that have none would be worth compiling by that
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = 5 * time.Second
	}
	conf.DialFunc = dialer.DialContext
	pause := &rested{after: restsFor}
	made := func(ctx context.Context, conn *pgx.Conn) error {
		register(conn.TypeMap())
		return pause.made(ctx, conn)
	}
	pool := sql.OpenDB(wrap(pipelines{stdlib.GetConnector(*conf, stdlib.OptionAfterConnect(made), stdlib.OptionResetSession(pause.check),
		stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false }))}))
	pool.SetMaxOpenConns(postgresConns)
	pool.SetMaxIdleConns(postgresConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return &DB{write: pool, read: pool, dialect: postgres, schema: conf.RuntimeParams["search_path"], bound: statementTimeout, rested: pause}, nil
}

// Close closes the connections. It waits for queries that are under way.
func (d *DB) Close() error {
	return errors.Join(d.read.Close(), d.write.Close()) // on PostgreSQL it is one, which is closed once
}

// Ping reports whether the database answers now.
func (d *DB) Ping(ctx context.Context) error {
	var one int
	if err := d.QueryRow(ctx, `select 1`).Scan(&one); err != nil {
		return fmt.Errorf("reach the database: %w", err)
	}
	return nil
}

// Query reads outside any transaction, for half a minute at most. The caller closes the rows.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	ctx, cancel := context.WithTimeout(ctx, d.bound)
	var rows *sql.Rows
	err := asked(func() (err error) {
		rows, err = d.read.QueryContext(ctx, query, args...)
		return err
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &Rows{rows, cancel}, nil
}

// Rows are rows that are not read yet.
type Rows struct {
	*sql.Rows
	done context.CancelFunc
}

// Close ends the reading. It may be called again.
func (r *Rows) Close() error {
	defer r.done()
	return r.Rows.Close()
}

// QueryRow reads one row outside any transaction, within half a minute. The caller scans it.
func (d *DB) QueryRow(ctx context.Context, query string, args ...any) Row {
	ctx, cancel := context.WithTimeout(ctx, d.bound)
	var row *sql.Row
	_ = asked(func() error { // Scan says the last one's error
		row = d.read.QueryRowContext(ctx, query, args...)
		return row.Err()
	})
	return Row{row, cancel}
}

// Row is a row that is not read yet.
type Row struct {
	row  *sql.Row
	done context.CancelFunc
}

// Scan copies the row's columns, once; sql.ErrNoRows says that there is none.
func (r Row) Scan(dest ...any) error {
	defer r.done()
	return r.row.Scan(dest...)
}

// Exec runs one statement in a transaction of its own, within half a minute, and returns how
// many rows it affected.
func (d *DB) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, d.bound)
	defer cancel()
	var res sql.Result
	err := asked(func() (err error) {
		res, err = d.write.ExecContext(ctx, query, args...)
		return err
	})
	return affected(res, err)
}

// asked asks again where the pool has handed out connections that turned out to be broken: it does
// that only three times, and more of them break at once when as many clients go away in the middle
// of their requests. Nothing has been done then.
func asked(do func() error) error {
	for attempt := 1; ; attempt++ {
		if err := do(); attempt == askAttempts || !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
}

const askAttempts = 10

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
