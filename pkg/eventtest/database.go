package eventtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
	"sync/atomic"
)

var errKilled = errors.New("the service was killed")

// database stands between a replica and its database: when the replica is dead, nothing is
// read or written any more.
type database struct {
	dead atomic.Bool
	// committing is called before the commit of a transaction in which events were handled.
	committing func()
}

// wrap is for db.Config.
func (d *database) wrap(c driver.Connector) driver.Connector { return connector{c, d} }

type connector struct {
	driver.Connector
	database *database
}

// Connect makes a connection, unless the replica is dead.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	if c.database.dead.Load() {
		return nil, errKilled
	}
	made, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{sqlConn: made.(sqlConn), database: c.database}, nil
}

// sqlConn is what both drivers' connections can do.
type sqlConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
}

// conn is a connection. database/sql uses it from one goroutine at a time.
type conn struct {
	sqlConn
	database *database
	handled  bool // the transaction under way has handled events
}

// BeginTx begins a transaction.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.database.dead.Load() {
		return nil, errKilled
	}
	c.handled = false
	tx, err := c.sqlConn.BeginTx(ctx, opts)
	return transaction{tx, c}, err
}

// ExecContext runs a statement.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.see(query) {
		return nil, errKilled
	}
	return c.sqlConn.ExecContext(ctx, query, args)
}

// QueryContext runs a query.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.see(query) {
		return nil, errKilled
	}
	return c.sqlConn.QueryContext(ctx, query, args)
}

// see notes by the inbox's own statements that events are handled.
func (c *conn) see(query string) (dead bool) {
	c.handled = c.handled || strings.HasPrefix(query, "insert into inbox ") || strings.HasPrefix(query, "delete from waiting_event ")
	return c.database.dead.Load()
}

// CheckNamedValue leaves an argument to the driver, or to database/sql.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.sqlConn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// IsValid asks the driver whether the connection may be used again.
func (c *conn) IsValid() bool {
	v, ok := c.sqlConn.(driver.Validator)
	return !ok || v.IsValid()
}

type transaction struct {
	driver.Tx
	conn *conn
}

// Commit commits, unless the replica dies before.
func (t transaction) Commit() error {
	if t.conn.handled && !t.conn.database.dead.Load() {
		t.conn.database.committing()
	}
	if t.conn.database.dead.Load() {
		return errors.Join(errKilled, t.Tx.Rollback())
	}
	return t.Tx.Commit()
}
