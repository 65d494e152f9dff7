package db

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
)

// Migrations are the goose SQL files of one owner of tables, such as a package or a
// service, in the folder migrations of Files. In their text "identity_key" stands for the type of a
// primary key that the database counts up and never uses twice.
type Migrations struct {
	Owner string // lower-case word; names the table of applied versions
	Files fs.FS
}

//go:embed migrations/*.sql
var own embed.FS

// Migrate brings the tables of all owners up to date, in the order given, each migration
// in a transaction. On PostgreSQL several processes may run it at once: they wait for each
// other. A SQLite file belongs to one process.
func (d *DB) Migrate(ctx context.Context, sets ...Migrations) error {
	if d.dialect == postgres {
		unlock, err := d.base(ctx)
		if err != nil {
			return fmt.Errorf("prepare the database: %w", err)
		}
		defer unlock()
	} else if err := d.write.PingContext(ctx); err != nil {
		// Because of its folder or its owner: what a start most often fails by, and SQLite does not
		// name the file.
		return fmt.Errorf("DATABASE_URL: open %s: %w", d.file, err)
	}
	for _, set := range append([]Migrations{{"db", own}}, sets...) {
		if err := d.migrate(ctx, set); err != nil {
			return fmt.Errorf("migrate the tables of %s: %w", set.Owner, err)
		}
	}
	return nil
}

func (d *DB) migrate(ctx context.Context, set Migrations) error {
	opts := []goose.ProviderOption{
		goose.WithTableName("migrations_" + set.Owner),
		goose.WithLogger(goose.NopLogger()),
		goose.WithDisableGlobalRegistry(true),
	}
	dialect := goose.DialectSQLite3
	if d.dialect == postgres {
		dialect = goose.DialectPostgres
	}
	folder, err := fs.Sub(set.Files, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, d.write, dialectFS{folder, d.dialect}, opts...)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

var identifier = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// base makes what the migrations rely on: the schema, and now_micros(). It returns holding
// a lock against other processes that migrate. (goose's own lock is probed every 5 s.)
func (d *DB) base(ctx context.Context) (unlock func(), err error) {
	if d.schema != "" && !identifier.MatchString(d.schema) {
		return nil, errors.New("search_path in DATABASE_URL must be one schema of lower-case letters, digits and _")
	}
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// A process that is stopped while it holds the lock must not keep the others from starting.
	statements := []string{`set idle_session_timeout = '30s'`, `select pg_advisory_lock(hashtext('keyline migrate'))`}
	if d.schema != "" {
		statements = append(statements, `create schema if not exists `+d.schema)
	}
	// stable, not volatile: an index on a time can be searched with it.
	statements = append(statements, `create or replace function now_micros() returns bigint language sql stable
		as 'select (extract(epoch from statement_timestamp()) * 1000000)::bigint'`)
	ended := keepAlive(ctx, conn)
	unlock = func() {
		ended()
		_, err := conn.ExecContext(context.WithoutCancel(ctx), `select pg_advisory_unlock_all()`)
		if err == nil {
			_, err = conn.ExecContext(context.WithoutCancel(ctx), `reset idle_session_timeout`)
		}
		if err != nil { // the lock must not outlive this call in the pool
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
		_ = conn.Close()
	}
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// keepAlive uses a connection now and then until stop is called.
func keepAlive(ctx context.Context, conn *sql.Conn) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = conn.ExecContext(context.WithoutCancel(ctx), `select 1`)
			}
		}
	})
	return func() { cancel(); wait.Wait() }
}

// dialectFS puts one database's words into the text of the files.
type dialectFS struct {
	fs.FS
	dialect dialect
}

func (f dialectFS) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	word := "bigint generated always as identity primary key"
	if f.dialect == sqliteDialect {
		// autoincrement: without it SQLite gives the ID of a deleted last row to the next.
		word = "integer primary key autoincrement"
	}
	return &sqlFile{info, bytes.NewReader(bytes.ReplaceAll(text, []byte("identity_key"), []byte(word)))}, nil
}

type sqlFile struct {
	info fs.FileInfo
	*bytes.Reader
}

func (f *sqlFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *sqlFile) Close() error               { return nil }
