package db

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

type dialect int

const (
	postgres dialect = iota
	sqliteDialect
)

// Micros is a time as the databases keep it: microseconds since 1970.
func Micros(t time.Time) int64 { return t.UnixMicro() }

// Time is the time of a stored number of microseconds, in UTC; the zero time for 0.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Bytes tells empty bytes from null in what was scanned, which SQLite's driver does not: null
// is whether the column was.
func Bytes(scanned []byte, null bool) []byte {
	if !null && scanned == nil {
		return []byte{}
	}
	return scanned
}

// SkipLocked is [Tx.ForUpdate] that leaves out rows which others have locked.
func (d *DB) SkipLocked() string { return d.dialect.lock(" for update skip locked") }

// ForUpdate is the clause that locks the rows a query returns until the end of the
// transaction. It is empty on SQLite, whose transactions have the whole database.
func (t *Tx) ForUpdate() string { return t.dialect.lock(" for update") }

func (d dialect) lock(clause string) string {
	if d == sqliteDialect {
		return ""
	}
	return clause
}

// In is a condition that column is one of values ([]string, []int64 or [][]byte), given as
// parameter number n, and the argument for it.
func (d *DB) In(column string, n int, values any) (condition string, arg any) {
	return d.dialect.in(column, n, values)
}

// In is as [DB.In].
func (t *Tx) In(column string, n int, values any) (condition string, arg any) {
	return t.dialect.in(column, n, values)
}

func (d dialect) in(column string, n int, values any) (string, any) {
	if d == postgres {
		return fmt.Sprintf("%s = any($%d)", column, n), values
	}
	value := "value"
	if bytes, ok := values.([][]byte); ok { // JSON has no bytes
		text := make([]string, len(bytes))
		for i, b := range bytes {
			text[i] = hex.EncodeToString(b)
		}
		values, value = text, "unhex(value)"
	}
	list, err := json.Marshal(values)
	if err != nil {
		panic(fmt.Sprintf("db: In of %T", values))
	}
	return fmt.Sprintf("%s in (select %s from json_each($%d))", column, value, n), string(list)
}

// LockEach is a query for columns of the rows of table for which where holds and column is one of
// values, given as parameter number n, with the argument for it. It locks them in the order of the
// values, each found by an index that begins with what where names and has column next: statistics
// that are not there yet cannot make it read all that wait.
func (t *Tx) LockEach(table, columns, where, column string, n int, values [][]byte) (query string, arg any) {
	values = slices.Clone(values)
	slices.SortFunc(values, bytes.Compare)
	values = slices.CompactFunc(values, bytes.Equal)
	if t.dialect == postgres {
		return fmt.Sprintf(`select locked.* from unnest($%d::bytea[]) as given(value) cross join lateral (
			select %s from %s where %s and %s = given.value for update) as locked`, n, columns, table, where, column), values
	}
	cond, arg := t.In(column, n, values)
	return fmt.Sprintf(`select %s from %s where %s and %s`, columns, table, where, cond), arg
}

// FirstEach is a query for columns of the first rows of table, as many as most in the order of seq,
// its primary key, for which where holds and column is value, for each of values, which are given
// as parameter number n, with the argument for it. It reads no more rows than that of an index that begins
// with what where names and has column and seq next.
func (t *Tx) FirstEach(table, columns, where, column, seq string, n int, values [][]byte, most int) (query string, arg any) {
	first := fmt.Sprintf(`from %s where %s and %s = given order by %s limit %d`, table, where, column, seq, most)
	if t.dialect == postgres {
		return fmt.Sprintf(`select first.* from unnest($%d::bytea[]) as given cross join lateral (select %s %s) as first`, n, columns, first), values
	}
	_, list := t.In("", n, values)
	return fmt.Sprintf(`select %s from (select unhex(value) as given from json_each($%d)) cross join %s as first on first.%s in (select %[4]s %s)`,
		columns, n, table, seq, first), list
}

// txOptions pin the isolation level: a transaction must see what others have committed between
// two of its statements, whatever the server's default is.
func (d dialect) txOptions() *sql.TxOptions {
	if d == postgres {
		return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	return nil
}

// Column is one column of the rows that [Tx.InsertAll] inserts. Values is a []string,
// []int64, [][]byte (nil is null) or []bool, all of the same length; or an [SQL], the same for all
// rows, in the last columns.
type Column struct {
	Name   string
	Values any
}

// SQL is an expression without parameters, such as now_micros().
type SQL string

// sqliteParams is how many parameters a statement may have on SQLite, unless it was compiled
// with another limit.
const sqliteParams = 32766

// rowsPerInsert is how many rows of so many columns one statement can insert.
func (d dialect) rowsPerInsert(cols int) int {
	if d == postgres {
		return math.MaxInt32 // it takes arrays
	}
	return sqliteParams / cols
}

// insertAll builds the statement for the rows from one up to another: arrays on PostgreSQL,
// so that the text and its plan are the same for any number of rows, and a list of values on
// SQLite.
func (d dialect) insertAll(table, tail string, cols []Column, from, to int) (query string, args []any) {
	head := "insert into " + table + " (" + names(cols) + ") "
	if d == postgres {
		rows, args := unnest(cols)
		all := "*"
		for _, c := range cols[len(args):] {
			all += ", " + string(c.Values.(SQL))
		}
		return head + "select " + all + " from " + rows + " " + tail, args
	}
	rows, args := values(cols, from, to)
	return head + rows + " " + tail, args
}

// updateAll builds the statement for the rows from one up to another, which the first column
// names.
func (d dialect) updateAll(table string, cols []Column, from, to int) (query string, args []any) {
	set := make([]string, 0, len(cols))
	for _, c := range cols[1:] {
		set = append(set, c.Name+" = new."+c.Name)
	}
	head, tail := "update "+table+" set "+strings.Join(set, ", ")+" from ", fmt.Sprintf(" where %s.%[2]s = new.%[2]s", table, cols[0].Name)
	if d == postgres {
		rows, args := unnest(cols)
		return head + rows + " as new (" + names(cols) + ")" + tail, args
	}
	aliases := make([]string, len(cols))
	for i, c := range cols {
		aliases[i] = fmt.Sprintf("column%d as %s", i+1, c.Name)
	}
	rows, args := values(cols, from, to)
	return head + "(select " + strings.Join(aliases, ", ") + " from (" + rows + ")) as new" + tail, args
}

func names(cols []Column) string {
	all := make([]string, len(cols))
	for i, c := range cols {
		all[i] = c.Name
	}
	return strings.Join(all, ", ")
}

func unnest(cols []Column) (rows string, args []any) {
	var arrays []string
	for i, c := range cols {
		if _, same := c.Values.(SQL); same {
			break
		}
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+1, pgType(c.Values)))
		args = append(args, c.Values)
	}
	return "unnest(" + strings.Join(arrays, ", ") + ")", args
}

func values(cols []Column, from, to int) (rows string, args []any) {
	row := make([]string, len(cols))
	for i, c := range cols {
		row[i] = "?" // SQLite looks a parameter with a name up among all others
		if same, ok := c.Values.(SQL); ok {
			row[i] = string(same)
		}
	}
	for i := from; i < to; i++ {
		for _, c := range cols {
			if _, same := c.Values.(SQL); !same {
				args = append(args, at(c.Values, i))
			}
		}
	}
	return "values " + strings.Repeat(", ("+strings.Join(row, ", ")+")", to-from)[2:], args
}

func pgType(values any) string {
	switch values.(type) {
	case []string:
		return "text"
	case []int64:
		return "bigint"
	case [][]byte:
		return "bytea"
	case []bool:
		return "boolean"
	}
	panic(fmt.Sprintf("db: a column of %T", values))
}

func length(values any) int {
	switch v := values.(type) {
	case []string:
		return len(v)
	case []int64:
		return len(v)
	case [][]byte:
		return len(v)
	case []bool:
		return len(v)
	}
	panic(fmt.Sprintf("db: a column of %T", values))
}

func at(values any, i int) any {
	switch v := values.(type) {
	case []string:
		return v[i]
	case []int64:
		return v[i]
	case [][]byte:
		if v[i] == nil {
			return nil // a nil []byte in an interface would be an empty blob
		}
		return v[i]
	case []bool:
		return v[i]
	}
	panic(fmt.Sprintf("db: a column of %T", values))
}

// IsConflict reports whether a transaction failed only because of others that ran beside
// it: a deadlock, a serialization failure, a lock that was not had in time. Running it
// again is right.
func IsConflict(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01" || pg.Code == "55P03"
	}
	primary := sqliteCode(err) & 0xff
	return primary == 5 || primary == 6 // SQLITE_BUSY, SQLITE_LOCKED
}

// IsTrouble reports whether a statement failed because of the server's state, not because of
// what it was asked: out of a resource, stopped by an operator or a timeout, read-only.
func IsTrouble(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] { // the classes of PostgreSQL's appendix A
	case "08", "53", "57", "58", "XX":
		return true
	}
	return pg.Code == "25006"
}
