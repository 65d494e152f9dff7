// Package dbtest opens databases for tests: a fresh schema on the PostgreSQL that
// DATABASE_URL names, or a SQLite file where it is not set.
package dbtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"example.com/keyline/pkg/db"
)

// URL returns the URL of an empty database of this test's own, and drops it at the end of
// the test.
func URL(tb testing.TB) string {
	tb.Helper()
	base := os.Getenv("DATABASE_URL")
	if base == "" {
		return "sqlite:" + filepath.Join(tb.TempDir(), "test.db")
	}
	u, err := url.Parse(base)
	if err != nil {
		tb.Fatal("DATABASE_URL is not a URL")
	}
	name := "test_" + suffix()
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	tb.Cleanup(func() {
		d, err := db.Open(db.Config{URL: base})
		if err != nil {
			tb.Error(err)
			return
		}
		defer d.Close()
		if _, err := d.Exec(context.Background(), `drop schema if exists `+name+` cascade`); err != nil {
			tb.Errorf("drop the test's schema: %v", err)
		}
	})
	return u.String()
}

// Open opens an empty database of this test's own with the tables of sets.
func Open(tb testing.TB, sets ...db.Migrations) *db.DB {
	tb.Helper()
	d, err := db.Open(db.Config{URL: URL(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := d.Migrate(context.Background(), sets...); err != nil {
		tb.Fatal(err)
	}
	return d
}

// Postgres reports whether the tests run on PostgreSQL.
func Postgres() bool { return os.Getenv("DATABASE_URL") != "" }

func suffix() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}
