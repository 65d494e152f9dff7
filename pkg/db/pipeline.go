package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// pipelines makes connections to PostgreSQL that save round trips: a statement whose answer nobody
// needs is sent together with the next one whose answer somebody does, the begin of a transaction
// and the inserts before its commit among them. The server works on them in their order, and on
// none behind one that fails; the error is then that of the statement that was waited for.
type pipelines struct{ driver.Connector }

// Connect implements driver.Connector.
func (p pipelines) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &pipeline{Conn: c.(*stdlib.Conn)}, nil
}

type markKey struct{}

type mark int

const (
	later  mark = iota + 1 // of a statement whose answer nobody needs now
	forget                 // of one before which what has not been sent is not sent at all
	await                  // of none: what has not been sent is sent
)

func marked(ctx context.Context, m mark) context.Context { return context.WithValue(ctx, markKey{}, m) }

type scanKey struct{}

// scanned is the context of a statement whose rows are read when its answer comes.
func scanned(ctx context.Context, scan func(Scanner) error) context.Context {
	return context.WithValue(marked(ctx, later), scanKey{}, scan)
}

// pipeline is one connection. database/sql uses it from one goroutine at a time.
type pipeline struct {
	*stdlib.Conn
	unsent []statement
	failed error // why what was unsent is lost: nothing of the transaction may be kept
}

type statement struct {
	query string
	args  []any
	scan  func(Scanner) error // nil: nobody reads its rows
}

// BeginTx implements driver.ConnBeginTx.
func (c *pipeline) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	begin, known := map[sql.IsolationLevel]string{
		sql.LevelDefault: "begin", sql.LevelReadCommitted: "begin isolation level read committed",
	}[sql.IsolationLevel(opts.Isolation)]
	switch {
	case !known || opts.ReadOnly:
		return nil, fmt.Errorf("transactions are read committed here, and may write: not %+v", opts)
	case c.Conn.Conn().IsClosed():
		return nil, driver.ErrBadConn
	}
	c.unsent, c.failed = []statement{{query: begin}}, nil
	return &pipelineTx{ctx, c}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *pipeline) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	switch ctx.Value(markKey{}) {
	case later:
		s := newStatement(query, args)
		s.scan, _ = ctx.Value(scanKey{}).(func(Scanner) error)
		c.unsent = append(c.unsent, s)
		return driver.ResultNoRows, nil
	case forget:
		c.unsent, c.failed = nil, nil
	case await:
		if c.failed != nil || len(c.unsent) == 0 {
			return driver.ResultNoRows, c.failed
		}
		sent, err := c.send(ctx)
		if err != nil {
			return nil, err
		}
		return driver.ResultNoRows, sent.Close()
	}
	if c.failed != nil {
		return nil, c.failed
	}
	if len(c.unsent) == 0 {
		return c.Conn.ExecContext(ctx, query, args)
	}
	n, err := c.exec(ctx, newStatement(query, args))
	return driver.RowsAffected(n.RowsAffected()), err
}

func newStatement(query string, named []driver.NamedValue) statement {
	args := make([]any, len(named))
	for i, v := range named {
		args[i] = v.Value
	}
	return statement{query: query, args: args}
}

// exec sends what is unsent, and a statement behind it.
func (c *pipeline) exec(ctx context.Context, last statement) (tag pgconn.CommandTag, err error) {
	sent, err := c.send(ctx, last)
	if err != nil {
		return tag, err
	}
	if tag, err = sent.Exec(); err != nil {
		_ = sent.Close() // says the same
		return tag, err
	}
	return tag, sent.Close()
}

// send sends what is unsent, and what is behind it, whose answer the caller reads.
func (c *pipeline) send(ctx context.Context, last ...statement) (pgx.BatchResults, error) {
	b, before := &pgx.Batch{}, c.unsent
	c.unsent = nil
	for _, s := range append(before, last...) {
		b.Queue(s.query, s.args...)
	}
	sent := c.Conn.Conn().SendBatch(ctx, b)
	for _, s := range before {
		if err := s.read(sent); err != nil {
			_ = sent.Close() // says the same
			c.failed = err
			return nil, err
		}
	}
	return sent, nil
}

// read reads the answer, which is the next one.
func (s *statement) read(sent pgx.BatchResults) error {
	if s.scan == nil {
		_, err := sent.Exec()
		return err
	}
	rows, err := sent.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := s.scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// QueryContext implements driver.QueryerContext.
func (c *pipeline) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.failed != nil {
		return nil, c.failed
	}
	if len(c.unsent) == 0 {
		return c.Conn.QueryContext(ctx, query, args)
	}
	sent, err := c.send(ctx, newStatement(query, args))
	if err != nil {
		return nil, err
	}
	rows, err := sent.Query()
	if err != nil {
		_ = sent.Close() // says the same
		return nil, err
	}
	r := &pipelineRows{rows: rows, sent: sent, more: rows.Next()} // it knows its columns only then
	if err := rows.Err(); err != nil {
		_ = r.Close() // says the same
		return nil, err
	}
	return r, nil
}

// pipelineTx is a transaction, whose begin may not have been sent yet.
type pipelineTx struct {
	ctx context.Context
	c   *pipeline
}

// Commit implements driver.Tx.
func (t *pipelineTx) Commit() error {
	if t.c.failed != nil {
		return errors.Join(t.c.failed, t.Rollback())
	}
	tag, err := t.c.exec(t.ctx, statement{query: "commit"})
	switch {
	case err != nil: // of something before it, perhaps
		_ = t.Rollback()
	case tag.String() == "ROLLBACK": // a statement had failed, and its error was ignored
		return pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback implements driver.Tx. A connection on which it fails is closed, which ends the
// transaction, too: it would hold its locks in the pool.
func (t *pipelineTx) Rollback() error {
	t.c.unsent, t.c.failed = nil, nil
	conn := t.c.Conn.Conn()
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' { // not even the begin was sent, or it is over
		return nil
	}
	_, err := conn.Exec(t.ctx, "rollback")
	if err != nil {
		_ = conn.PgConn().Conn().Close() // without the farewell, which would wait for an answer
	}
	return err
}

// pipelineRows are the rows of the last statement that was sent.
type pipelineRows struct {
	rows pgx.Rows
	sent pgx.BatchResults
	more bool
}

// Columns implements driver.Rows.
func (r *pipelineRows) Columns() []string {
	fields := r.rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// Close implements driver.Rows.
func (r *pipelineRows) Close() error {
	r.rows.Close()
	return r.sent.Close()
}

// Next implements driver.Rows.
func (r *pipelineRows) Next(dest []driver.Value) error {
	if !r.more {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	values, err := r.rows.Values()
	if err != nil {
		return err
	}
	for i, v := range values {
		if dest[i], err = driverValue(v); err != nil {
			return fmt.Errorf("column %s: %w", r.rows.FieldDescriptions()[i].Name, err)
		}
	}
	r.more = r.rows.Next()
	return nil
}

// driverValue is a value as database/sql takes it.
func driverValue(v any) (driver.Value, error) {
	switch v := v.(type) {
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case float32:
		return float64(v), nil
	case driver.Valuer:
		return v.Value()
	}
	if !driver.IsValue(v) {
		return nil, fmt.Errorf("its type is none that can be read here (%T): cast it to text", v)
	}
	return v, nil
}
