package db

import (
	"context"
	"database/sql"
	"fmt"
)

// Size is what a table takes on disk, with its indexes and what deleted rows have left.
type Size struct {
	Table string // empty on SQLite: the whole file
	Bytes int64
}

// Sizes are those of the service's tables. It reads no rows: PostgreSQL asks the file system.
func (d *DB) Sizes(ctx context.Context) ([]Size, error) {
	query := `select '', page_count * page_size from pragma_page_count(), pragma_page_size()`
	if d.dialect == postgres {
		query = `select relname, pg_total_relation_size(oid) from pg_class where relkind = 'r' and relnamespace = current_schema()::regnamespace order by 1`
	}
	rows, err := d.Query(ctx, query)
	sizes, err := Collect(rows, err, func(r *sql.Rows, s *Size) error { return r.Scan(&s.Table, &s.Bytes) })
	if err != nil {
		return nil, fmt.Errorf("measure the tables: %w", err)
	}
	return sizes, nil
}
