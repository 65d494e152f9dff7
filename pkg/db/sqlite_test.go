//go:build !nosqlite

package db_test

import (
	"context"
	"strings"
	"testing"

	"example.com/keyline/pkg/db"
)

func TestOpen_sqlite(t *testing.T) {
	t.Parallel()
	t.Run("a file that cannot be opened is named with its variable", func(t *testing.T) {
		t.Parallel()
		path := t.TempDir() + "/nowhere/order.db"
		d, err := db.Open(db.Config{URL: "sqlite:" + path + "?mode=rwc"})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Migrate(context.Background(), items); err == nil || !strings.Contains(err.Error(), "DATABASE_URL: open "+path) {
			t.Errorf("Migrate = %v, want an error that names DATABASE_URL and %s", err, path)
		}
	})
	t.Run("a path with signs that mean something in a URI is one file", func(t *testing.T) {
		t.Parallel()
		d, err := db.Open(db.Config{URL: "sqlite:" + t.TempDir() + "/a#b %41.db"})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Migrate(context.Background(), items); err != nil {
			t.Fatal(err)
		}
	})
}
