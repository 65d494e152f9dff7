package db_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
)

// The modes of pgx that do not ask the server for the types of parameters know them too, also
// in a program that is built as the images are (make test-real runs this with their tags).
func TestTypes(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Skip("PostgreSQL only")
	}
	type name string
	url := dbtest.URL(t)
	separator := map[bool]string{true: "&", false: "?"}[strings.Contains(url, "?")]
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d, err := db.Open(db.Config{URL: url + separator + "default_query_exec_mode=" + mode})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, tt := range []struct {
				condition string
				arg       any
			}{
				{`true = $1`, true},
				{`7 = $1`, 7},
				{`7::int2 = $1`, int16(7)},
				{`7::int4 = $1`, int32(7)},
				{`7::int8 = $1`, int64(7)},
				{`0.5::float8 = $1`, 0.5},
				{`'tea'::text = $1`, "tea"},
				{`'tea'::text = $1`, name("tea")},
				{`'\x01'::bytea = $1`, []byte{1}},
				{`'{}'::jsonb = $1`, json.RawMessage(`{}`)},
				{`'2026-01-02T03:04:05Z'::timestamptz = $1`, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
				{`'tea'::text = any($1)`, []string{"cup", "tea"}},
				{`'\x01'::bytea = any($1)`, [][]byte{{0}, {1}}},
				{`7::int8 = any($1)`, []int64{6, 7}},
				{`$1::text is null`, nil},
				{`'tea'::text = $1`, new("tea")},
				{`7::int8 = $1`, new(int64(7))},
				{`$1::text is null`, (*string)(nil)},
				{`$1::int8 is null`, (*int64)(nil)},
			} {
				var ok bool
				if err := d.QueryRow(context.Background(), `select `+tt.condition, tt.arg).Scan(&ok); err != nil || !ok {
					t.Errorf("%s with %T %v: %v, %v", tt.condition, tt.arg, tt.arg, ok, err)
				}
			}
		})
	}
}
