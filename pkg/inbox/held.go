package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"example.com/keyline/pkg/db"
)

// held tells of each type whose events are not tried now why that is: what it needs is down,
// or too many have died in a row.
func (in *Inbox) held(ctx context.Context) (map[string]string, error) {
	rows, err := in.db.Query(ctx, `select distinct type from waiting_key where group_name = $1 and state = 'unavailable'`, in.cfg.Group)
	types, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error { return r.Scan(s) })
	if err != nil {
		return nil, fmt.Errorf("read which types are held: %w", err)
	}
	why := map[string]string{}
	for _, typ := range types {
		var last string
		err := in.db.QueryRow(ctx, `select e.error from waiting_key k join waiting_event e on e.group_name = k.group_name and e.topic = k.topic and e.key = k.key
			where k.group_name = $1 and k.state = 'unavailable' and k.type = $2 and e.type = $2 and e.error <> '' and not e.set_aside
			order by e.failed_at desc limit 1`, in.cfg.Group, typ).Scan(&last)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("read why %s is held: %w", typ, err)
		}
		if why[typ] = typ + " is held"; last != "" {
			why[typ] += ": " + last
		}
	}
	return why, nil
}

// place is where an event stands: in its own state, and in that of its key, whose type is
// that of its first event.
type place struct{ state, keyState, keyType string }

// waitsFor is the type whose being held would keep an event of typ waiting.
func (p place) waitsFor(typ string) string {
	switch {
	case p.state != string(behind):
		return typ
	case p.keyState == string(unavailable):
		return p.keyType
	}
	return ""
}
