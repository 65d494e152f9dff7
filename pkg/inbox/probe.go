package inbox

import (
	"context"
	"database/sql"
	"time"

	"example.com/keyline/pkg/db"
)

// reached tells the breaker what an attempt says about what its type needs: it was there,
// even if it refused, or it was not.
func (in *Inbox) reached(ctx context.Context, it *item, v *verdict) {
	if it.probe != nil && *it.probe != it.meta.Type {
		in.resume(ctx, *it.probe) // events that could not be read yet, for want of the registry
	}
	if v != nil && v.state == unavailable {
		in.unreachable(ctx, it.meta.Type, v)
	} else {
		in.resume(ctx, it.meta.Type)
	}
}

// unreachable opens the circuit of a type, or keeps it open.
func (in *Inbox) unreachable(ctx context.Context, typ string, v *verdict) {
	if in.breaker.fail(typ, v.flood, time.Now()) {
		in.cfg.Log.WarnContext(ctx, "unavailable, its events wait", "type", typ, "error", errorText(v.err))
	}
}

// admit reports whether an event may be tried. If its type's circuit is open, the event is a
// probe then.
func (in *Inbox) admit(it *item) (ok bool) {
	if it.probe != nil {
		return true
	}
	ok, probe := in.breaker.admits(it.meta.Type)
	if probe {
		it.probe = &it.meta.Type
	}
	return ok
}

// shelve lets a key wait for what its first event needs.
func (in *Inbox) shelve(ctx context.Context, tx *db.Tx, it *item) error {
	_, err := tx.Exec(ctx, `update waiting_key set state = 'unavailable', type = $4 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, it.Topic, it.keyBytes(), it.meta.Type)
	return err
}

// probe tries one event of a type whose circuit is open.
func (in *Inbox) probe(ctx context.Context) error {
	typ, due := in.breaker.probe(time.Now())
	if !due {
		return nil
	}
	defer func() { in.breaker.giveUp(typ, time.Now()) }() // does nothing once the probe has an outcome
	worked, err := in.runOne(ctx, `state = 'unavailable' and type = $2 order by due`, &typ, typ)
	if err == nil && !worked {
		in.breaker.close(typ)
	}
	return err
}

// resume lets keys go on that waited for what a type needs: all, or a wave of them.
func (in *Inbox) resume(ctx context.Context, typ string) {
	left := in.breaker.succeed(typ, time.Now())
	if left == 0 {
		return
	}
	closed := left == everything
	for left > 0 {
		// Keys that are locked are left out, so that no lock is waited for out of order;
		// findUnavailable sees to them.
		most := min(left, 1000)
		n, err := in.db.Exec(ctx, `update waiting_key set state = 'retrying', due = now_micros() where group_name = $1 and (topic, key) in (
			select topic, key from waiting_key where group_name = $1 and state = 'unavailable' and type = $2 order by due limit $3`+in.db.SkipLocked()+`)`, in.cfg.Group, typ, most)
		if err != nil {
			break
		}
		if left -= most; n < int64(most) {
			in.breaker.close(typ)
			closed = true
			break
		}
	}
	if closed {
		in.cfg.Log.InfoContext(ctx, "available again", "type", typ)
	}
	in.Wake()
}

// findUnavailable opens the circuits of what waits in the database, put there by another
// process or an earlier one, so that this one probes too.
func (in *Inbox) findUnavailable(ctx context.Context) error {
	rows, err := in.db.Query(ctx, `select distinct type from waiting_key where group_name = $1 and state = 'unavailable'`, in.cfg.Group)
	types, err := db.Collect(rows, err, func(r *sql.Rows, s *string) error { return r.Scan(s) })
	for _, typ := range types {
		in.breaker.found(typ, !in.looked, time.Now())
	}
	in.looked = in.looked || err == nil
	return err
}
