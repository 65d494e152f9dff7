//go:build synctests

package sim_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/db/dbtest"
)

// database is the database of a service, which outlives its processes.
type database struct {
	mu      sync.Mutex
	readers int
	writing bool
	free    chan struct{} // closed when a lock is given back; nil if nobody waits

	slow   time.Duration // beside the usual delay
	broken time.Time     // until then calls fail
	skew   time.Duration // of its clock
	fails  float64       // how often a statement on the service's own tables fails
}

func (d *database) state() (slow time.Duration, broken bool, skew time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slow, time.Now().Before(d.broken), d.skew
}

func (d *database) set(fn func(*database)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d)
}

// lockWait is how long a call waits for the locks of others.
const lockWait = 10 * time.Second

// lock takes the database for a transaction or a read. SQLite itself would wait in real time,
// and with its memory as the file a writer locks out readers.
func (d *database) lock(ctx context.Context, write bool) error {
	return d.lockWithin(ctx, write, lockWait)
}

func (d *database) lockWithin(ctx context.Context, write bool, patience time.Duration) error {
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		free := d.tryLock(write)
		if free == nil {
			return nil
		}
		select {
		case <-free:
		case <-over.C:
			return errLocked
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *database) tryLock(write bool) (free chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writing || write && d.readers > 0 {
		if d.free == nil {
			d.free = make(chan struct{})
		}
		return d.free
	}
	if d.writing = write; !write {
		d.readers++
	}
	return nil
}

func (d *database) unlock(write bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if write {
		d.writing = false
	} else {
		d.readers--
	}
	if d.free != nil {
		close(d.free)
		d.free = nil
	}
}

var (
	errLocked = errors.New("database is locked")
	errGone   = errors.New("the process has crashed")
	errDisk   = errors.New("the connection to the database is lost")
)

// connector makes connections of one process, which end with it.
type connector struct {
	driver.Connector
	p *process
}

// Connect is part of [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.p.call(ctx); err != nil {
		return nil, err
	}
	if err := c.p.db.lock(ctx, true); err != nil {
		return nil, err
	}
	raw, err := c.Connector.Connect(ctx)
	c.p.db.unlock(true)
	if err != nil {
		return nil, err
	}
	d := &dbConn{raw: raw.(rawConn), p: c.p}
	if !c.p.adopt(d) {
		_ = raw.Close()
		return nil, errGone
	}
	return d, nil
}

// rawConn is what SQLite's connections offer.
type rawConn interface {
	dbtest.Conn
	driver.Validator
}

// dbConn is a connection that can be cut and that takes its time. Its delays come before the
// call, never while SQLite holds a lock for it.
type dbConn struct {
	raw rawConn
	p   *process

	mu     sync.Mutex
	busy   bool
	gone   bool
	closed bool
	rows   driver.Rows // that are open
	tx     driver.Tx   // under way: it has the database's lock
	reads  bool        // rows are open outside a transaction: they have a lock
}

// lock takes a lock for a call outside a transaction, and reports whether it has.
func (c *dbConn) lock(ctx context.Context, write bool) (locked bool, err error) {
	c.mu.Lock()
	inside := c.tx != nil
	c.mu.Unlock()
	if inside {
		return false, nil
	}
	if err := c.p.db.lock(ctx, write); err != nil {
		return false, err
	}
	return true, nil
}

// begin opens a call; end closes it, and what was cut meanwhile.
func (c *dbConn) begin(ctx context.Context) error {
	if err := c.p.call(ctx); err != nil {
		return c.lost(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return errGone
	}
	c.busy = true
	return nil
}

func (c *dbConn) end(err error) error {
	c.mu.Lock()
	c.busy = false
	gone := c.gone
	c.mu.Unlock()
	if gone {
		c.destroy()
		return errGone
	}
	return err
}

// lost gives the connection up if the database was broken.
func (c *dbConn) lost(err error) error {
	if errors.Is(err, errDisk) {
		c.kill()
	}
	return err
}

// kill ends the connection, and with it its transaction, when no call is under way.
func (c *dbConn) kill() {
	c.mu.Lock()
	c.gone = true
	busy := c.busy
	c.mu.Unlock()
	if !busy {
		c.destroy()
	}
}

func (c *dbConn) destroy() {
	c.mu.Lock()
	rows, tx, closed, reads := c.rows, c.tx, c.closed, c.reads
	c.rows, c.tx, c.closed, c.reads = nil, nil, true, false
	c.mu.Unlock()
	if closed {
		return
	}
	if rows != nil {
		_ = rows.Close()
	}
	if reads {
		c.p.db.unlock(false)
	}
	if tx != nil {
		_ = tx.Rollback()
		c.p.db.unlock(true)
	}
	_ = c.raw.Close()
}

// Prepare is part of [driver.Conn].
func (c *dbConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext is part of [driver.ConnPrepareContext].
func (c *dbConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errors.New("the simulation knows no prepared statements")
}

// Begin is part of [driver.Conn].
func (c *dbConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx is part of [driver.ConnBeginTx].
func (c *dbConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if err := c.p.db.lock(ctx, true); err != nil {
		return nil, c.end(err)
	}
	tx, err := c.raw.BeginTx(context.WithoutCancel(ctx), opts)
	if err == nil {
		c.mu.Lock()
		c.tx = tx
		c.mu.Unlock()
	} else {
		c.p.db.unlock(true)
	}
	if err := c.end(err); err != nil {
		return nil, err
	}
	return &dbTx{c, tx}, nil
}

// own are the tables that the services' own code reads and writes.
var own = regexp.MustCompile(`\b(orders|stock|reservation|movement|recipient|mail)\b`)

var errStatement = errors.New("the statement failed")

// refused is whether a statement fails, and nothing else with it: that is a handler's failure.
func (c *dbConn) refused(query string) bool {
	c.p.db.mu.Lock()
	p := c.p.db.fails
	c.p.db.mu.Unlock()
	if p == 0 || strings.HasPrefix(query, "create") || !own.MatchString(query) || !c.p.w.dice.chance(p) {
		return false
	}
	c.p.w.log.count("statement failed")
	return true
}

// ExecContext is part of [driver.ExecerContext].
func (c *dbConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	locked, err := c.lock(ctx, true)
	if err != nil {
		return nil, c.end(err)
	}
	var res driver.Result
	if err = errStatement; !c.refused(query) {
		res, err = c.raw.ExecContext(context.WithoutCancel(ctx), c.skewed(query), args)
	}
	if locked {
		c.p.db.unlock(true)
	}
	return res, c.end(err)
}

// QueryContext is part of [driver.QueryerContext].
func (c *dbConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	locked, err := c.lock(ctx, false)
	if err != nil {
		return nil, c.end(err)
	}
	var rows driver.Rows
	if err = errStatement; !c.refused(query) {
		rows, err = c.raw.QueryContext(context.WithoutCancel(ctx), c.skewed(query), args)
	}
	if err == nil {
		c.mu.Lock()
		c.rows, c.reads = rows, locked
		c.mu.Unlock()
	} else if locked {
		c.p.db.unlock(false)
	}
	if err := c.end(err); err != nil {
		return nil, err
	}
	return &dbRows{rows, c}, nil
}

// skewed lets the database's clock differ from that of the others.
func (c *dbConn) skewed(query string) string {
	if _, _, skew := c.p.db.state(); skew != 0 {
		return strings.ReplaceAll(query, "now_micros()", fmt.Sprintf("(now_micros() + %d)", skew.Microseconds()))
	}
	return query
}

// ResetSession is part of [driver.SessionResetter].
func (c *dbConn) ResetSession(ctx context.Context) error {
	if !c.IsValid() {
		return driver.ErrBadConn
	}
	return c.raw.ResetSession(ctx)
}

// IsValid is part of [driver.Validator].
func (c *dbConn) IsValid() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gone && !c.closed
}

// Close is part of [driver.Conn].
func (c *dbConn) Close() error {
	c.p.disown(c)
	c.destroy()
	return nil
}

type dbRows struct {
	driver.Rows
	c *dbConn
}

// Next is part of [driver.Rows].
func (r *dbRows) Next(dest []driver.Value) error {
	if !r.c.IsValid() {
		return errGone
	}
	return r.Rows.Next(dest)
}

// Close is part of [driver.Rows].
func (r *dbRows) Close() error {
	r.c.mu.Lock()
	mine := r.c.rows == r.Rows
	reads := mine && r.c.reads
	if mine {
		r.c.rows, r.c.reads = nil, false
	}
	r.c.mu.Unlock()
	if !mine {
		return nil // closed with the connection
	}
	err := r.Rows.Close()
	if reads {
		r.c.p.db.unlock(false)
	}
	return err
}

type dbTx struct {
	c  *dbConn
	tx driver.Tx
}

// Commit is part of [driver.Tx]. The process may crash right before it, or right after, when
// nobody has been told yet.
func (t *dbTx) Commit() error {
	if t.c.p.trapped(beforeCommit) {
		return errGone
	}
	if err := t.c.begin(context.Background()); err != nil {
		return err
	}
	err := t.tx.Commit()
	t.c.mu.Lock()
	t.c.tx = nil
	t.c.mu.Unlock()
	t.c.p.db.unlock(true)
	if err = t.c.end(err); err != nil {
		return err
	}
	if t.c.p.trapped(afterCommit) {
		return errGone
	}
	if t.c.p.forgets() {
		t.c.kill() // the answer to the commit is lost
		return errDisk
	}
	return nil
}

// Rollback is part of [driver.Tx].
func (t *dbTx) Rollback() error {
	t.c.mu.Lock()
	mine := t.c.tx == t.tx && !t.c.closed
	t.c.tx = nil
	t.c.mu.Unlock()
	if !mine {
		return nil // undone with the connection
	}
	err := t.tx.Rollback()
	t.c.p.db.unlock(true)
	return err
}
