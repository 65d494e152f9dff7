package db

import (
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// register tells a connection what PostgreSQL calls the types of our parameters, which it
// does not ask the server for with default_query_exec_mode=exec or simple_protocol in the
// URL, as behind some poolers. pgx would register hundreds, a sixteenth of a program's size,
// if the images were not built with -tags nopgxregisterdefaulttypes.
func register(m *pgtype.Map) {
	registerOne[bool](m, "bool")
	registerOne[int](m, "int8")
	registerOne[int16](m, "int2")
	registerOne[int32](m, "int4")
	registerOne[int64](m, "int8")
	registerOne[float64](m, "float8")
	registerOne[string](m, "text")
	registerOne[[]byte](m, "bytea")
	registerOne[json.RawMessage](m, "json")
	registerOne[time.Time](m, "timestamptz")
}

func registerOne[T any](m *pgtype.Map, name string) {
	var one T
	m.RegisterDefaultPgType(one, name)
	m.RegisterDefaultPgType([]T{}, "_"+name)
}
