package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// newDatabase makes an empty database: on the PostgreSQL of DATABASE_URL, or a file of SQLite. drop
// removes it again; whoever has connections to it closes them first.
func (r *rig) newDatabase(ctx context.Context) (to string, drop func() error, err error) {
	if r.postgres == "" {
		dir, err := os.MkdirTemp("", "keyline-bench-")
		if err != nil {
			return "", nil, err
		}
		return "sqlite:" + filepath.Join(dir, "bench.db"), func() error { return os.RemoveAll(dir) }, nil
	}
	admin, err := sql.Open("pgx", r.postgres)
	if err != nil {
		return "", nil, err
	}
	defer admin.Close()
	r.databases++
	name := fmt.Sprintf("bench_%d_%d", os.Getpid(), r.databases)
	if _, err := admin.ExecContext(ctx, "create database "+name); err != nil {
		return "", nil, err
	}
	u, err := url.Parse(r.postgres)
	if err != nil {
		return "", nil, errors.New("DATABASE_URL is no URL")
	}
	u.Path = "/" + name
	return u.String(), func() error {
		admin, err := sql.Open("pgx", r.postgres)
		if err != nil {
			return err
		}
		defer admin.Close()
		_, err = admin.ExecContext(context.WithoutCancel(ctx), "drop database if exists "+name+" with (force)")
		return err
	}, nil
}

// findDatabase takes the PostgreSQL of DATABASE_URL, if there is one.
func (r *rig) findDatabase() error {
	given := os.Getenv("DATABASE_URL")
	if given == "" {
		return nil
	}
	u, err := url.Parse(given)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return errors.New("DATABASE_URL must begin with postgres://, or be empty: SQLite is made anew for every run")
	}
	r.postgres = given
	r.accounts = append(r.accounts, account{"database", listener(u.Host)})
	return nil
}

// onDatabase gives fn an empty database, and removes it afterwards.
func (r *rig) onDatabase(ctx context.Context, fn func(url string) error) error {
	url, drop, err := r.newDatabase(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(url), drop())
}

// onTables is onDatabase with the tables of an inbox and of an outbox, and more.
func (r *rig) onTables(ctx context.Context, fn func(url string, d *db.DB) error, more ...string) error {
	return r.onDatabase(ctx, func(url string) error {
		d, err := openTables(ctx, url, more...)
		if err != nil {
			return err
		}
		return errors.Join(fn(url, d), d.Close())
	})
}

func openTables(ctx context.Context, url string, more ...string) (*db.DB, error) {
	d, err := db.Open(db.Config{URL: url})
	if err != nil {
		return nil, err
	}
	err = d.Migrate(ctx, inbox.Migrations, outbox.Migrations)
	for _, statement := range more {
		if err == nil {
			_, err = d.Exec(ctx, statement)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// onPostgres is the run of a side that PostgreSQL alone can serve: none where there is none.
func (r *rig) onPostgres(run runFunc) runFunc {
	if r.postgres == "" {
		return nil
	}
	return run
}

// poolConns is as many connections as a service of ours has.
const poolConns = 20

// newPool opens a database for others than ours.
func newPool(ctx context.Context, url string, conns int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = conns
	return pgxpool.NewWithConfig(ctx, cfg)
}
