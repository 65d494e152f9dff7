package db

import (
	"context"
	"database/sql"
	"fmt"
)

// LoadSchemas returns the schemas that were kept, by their registry ID. With
// [DB.SaveSchema] it makes a DB the store of a codec, so that a restart needs no registry.
func (d *DB) LoadSchemas(ctx context.Context) (map[int]string, error) {
	type kept struct {
		id     int
		schema string
	}
	rows, err := d.Query(ctx, `select id, schema from kept_schema`)
	all, err := Collect(rows, err, func(r *sql.Rows, k *kept) error { return r.Scan(&k.id, &k.schema) })
	if err != nil {
		return nil, fmt.Errorf("load kept schemas: %w", err)
	}
	schemas := make(map[int]string, len(all))
	for _, k := range all {
		schemas[k.id] = k.schema
	}
	return schemas, nil
}

// SaveSchema keeps a schema under its registry ID, in place of what stood there.
func (d *DB) SaveSchema(ctx context.Context, id int, schema string) error {
	_, err := d.Exec(ctx, `insert into kept_schema (id, schema) values ($1, $2) on conflict (id) do update set schema = excluded.schema`, id, schema)
	if err != nil {
		return fmt.Errorf("keep schema %d: %w", id, err)
	}
	return nil
}
