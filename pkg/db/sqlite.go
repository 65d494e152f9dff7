//go:build !nosqlite

package db

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"modernc.org/sqlite"
)

const sqliteReaders = 4

func init() {
	// On SQLite now_micros() is this process's clock; PostgreSQL's is made by Migrate.
	err := sqlite.RegisterScalarFunction("now_micros", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return time.Now().UnixMicro(), nil
	})
	if err != nil {
		panic(err)
	}
}

func openSQLite(path string, wrap func(driver.Connector) driver.Connector) (*DB, error) {
	if path == "" {
		return nil, fmt.Errorf("DATABASE_URL must name a file behind sqlite:, for example sqlite:./order.db")
	}
	file, query, _ := strings.Cut(path, "?")
	// The path is escaped because SQLite takes a URI: a # or % in it would end elsewhere.
	dsn := "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + query +
		"&_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)"
	writer, err := sqlite.NewConnector(dsn + "&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open sqlite: %w", err)
	}
	reader, err := sqlite.NewConnector(dsn + "&_pragma=query_only(1)")
	if err != nil {
		return nil, fmt.Errorf("open sqlite: %w", err)
	}
	write, read := sql.OpenDB(wrap(writer)), sql.OpenDB(wrap(reader))
	write.SetMaxOpenConns(1)
	read.SetMaxOpenConns(sqliteReaders)
	read.SetMaxIdleConns(sqliteReaders)
	return &DB{write: write, read: read, dialect: sqliteDialect, file: file, bound: statementTimeout}, nil
}

// sqliteCode is SQLite's extended code of an error, 0 for any other.
func sqliteCode(err error) int {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return lite.Code()
	}
	return 0
}
