package dbtest

import (
	"context"
	"database/sql/driver"
)

// Breaks are the places where connections can be made to break: the functions are called there,
// and what they return is the error. Those that are nil break nothing. They are called from many
// goroutines.
type Breaks struct {
	Begin     func() error                                                  // before a transaction begins
	Statement func(query string, args []driver.NamedValue, inTx bool) error // before a statement runs
	Committed func() error                                                  // after a commit that has succeeded
}

// Wrap is for the field of that name of a db.Config.
func (b Breaks) Wrap(c driver.Connector) driver.Connector { return breaking{c, b} }

type breaking struct {
	driver.Connector
	breaks Breaks
}

func (b breaking) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := b.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: raw.(Conn), breaks: b.breaks}, nil
}

// Conn is what both drivers' connections offer.
type Conn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
}

type breakingConn struct {
	Conn
	breaks Breaks
	inTx   bool
}

func (c *breakingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.breaks.Begin != nil {
		if err := c.breaks.Begin(); err != nil {
			return nil, err
		}
	}
	tx, err := c.Conn.BeginTx(ctx, opts)
	c.inTx = err == nil
	return breakingTx{tx, c}, err
}

func (c *breakingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.statement(query, args); err != nil {
		return nil, err
	}
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *breakingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.statement(query, args); err != nil {
		return nil, err
	}
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *breakingConn) statement(query string, args []driver.NamedValue) error {
	if c.breaks.Statement == nil {
		return nil
	}
	return c.breaks.Statement(query, args, c.inTx)
}

// CheckNamedValue leaves PostgreSQL's arrays to its driver.
func (c *breakingConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type breakingTx struct {
	driver.Tx
	c *breakingConn
}

func (t breakingTx) Commit() error {
	t.c.inTx = false
	err := t.Tx.Commit()
	if err == nil && t.c.breaks.Committed != nil {
		err = t.c.breaks.Committed()
	}
	return err
}

func (t breakingTx) Rollback() error {
	t.c.inTx = false
	return t.Tx.Rollback()
}
