//go:build nosqlite

package db

import (
	"database/sql/driver"
	"errors"
)

// An image for a cluster leaves SQLite out, a fifth of its size: its replicas would not share a file.
func openSQLite(string, func(driver.Connector) driver.Connector) (*DB, error) {
	return nil, errors.New("DATABASE_URL must begin with postgres://: this program was built without SQLite (-tags nosqlite)")
}

func sqliteCode(error) int { return 0 }
