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

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
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
