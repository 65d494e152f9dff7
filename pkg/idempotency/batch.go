package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/db"
)

// Batch is [Keys.Do] for handlers that work on many requests with one statement. It is safe for
// concurrent use.
type Batch[W any] struct {
	keys  *Keys
	write func(context.Context, *db.Tx, []W) error
	group *db.GroupCommit[*request[W]]
}

const (
	maxBatch = 250
	// linger makes batches larger, and with them what all services behind this one work on together.
	linger = 10 * time.Millisecond
	// patience bounds a transaction, which no client can end: it would end the requests of others.
	patience = 30 * time.Second
)

// NewBatch makes a batch whose effects are written by write. An error of it means that nothing is
// done of these requests; they are given again one by one.
func NewBatch[W any](k *Keys, write func(context.Context, *db.Tx, []W) error) *Batch[W] {
	b := &Batch[W]{keys: k, write: write}
	b.group = db.NewGroupCommit(linger, maxBatch, func(*request[W]) int { return 1 }, b.run)
	return b
}

// request is one caller's part of a batch.
type request[W any] struct {
	key         string
	fingerprint []byte
	work        W
	first       Answer // if it is the first with its key

	// What it is answered.
	answer   Answer
	replayed bool
	err      error
}

// Do answers a request: with what is stored under the key, or with answer, once work has been
// written and the answer been stored beside it; replayed says which. refused, if it is not nil, is
// why the request cannot be done, and the error unless an answer is stored. Other errors are as
// those of [Keys.Do]. The end of ctx ends the look-up of one that is refused only: a transaction has half a
// minute, whoever leaves.
func (b *Batch[W]) Do(ctx context.Context, key string, fingerprint []byte, work W, answer Answer, refused error) (a Answer, replayed bool, err error) {
	if refused != nil {
		switch a, found, err := b.keys.find(ctx, key, fingerprint); {
		case err != nil:
			return Answer{}, false, err
		case found:
			return a, true, nil
		}
		return Answer{}, false, refused
	}
	r := &request[W]{key: key, fingerprint: fingerprint, work: work, first: answer}
	if err := b.group.Do(context.WithoutCancel(ctx), r); err != nil {
		return Answer{}, false, err
	}
	if r.err != nil {
		return Answer{}, false, r.err
	}
	return r.answer, r.replayed, nil
}

// run answers requests in one transaction, or, if that fails, each in its own.
func (b *Batch[W]) run(ctx context.Context, all []*request[W]) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if len(all) > 1 && b.keys.db.Once(ctx, func(ctx context.Context, tx *db.Tx) error { return b.do(ctx, tx, all, new(bool)) }) == nil {
		return nil
	}
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			waiting := false
			err := b.keys.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
				return b.do(ctx, tx, []*request[W]{r}, &waiting)
			})
			switch {
			case waiting && db.IsConflict(err):
				r.err = ErrInFlight
			case err != nil:
				r.err = err
			}
		})
	}
	wg.Wait()
	return nil
}

// do claims the keys and writes what has to be done for those that were free. waiting is whether
// it waits for a twin.
func (b *Batch[W]) do(ctx context.Context, tx *db.Tx, all []*request[W], waiting *bool) error {
	*waiting = true
	claimed, err := b.claim(ctx, tx, all)
	if err != nil {
		return err
	}
	*waiting = false
	var work []W
	var others []*request[W]
	for _, r := range all {
		if r.answer, r.replayed, r.err = r.first, false, nil; claimed[r.key] == r {
			work = append(work, r.work)
		} else {
			others = append(others, r)
		}
	}
	if len(work) > 0 {
		if err := b.write(ctx, tx, work); err != nil {
			return err
		}
	}
	return b.replay(ctx, tx, others)
}

// claim stores the answers under keys that are free, or expired, and returns whose they are then.
// It waits for the transactions of twins to end. The keys are sorted, which is everybody's order
// of locks.
func (b *Batch[W]) claim(ctx context.Context, tx *db.Tx, all []*request[W]) (map[string]*request[W], error) {
	if err := tx.LockTimeout(ctx, lockWait); err != nil {
		return nil, err
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b *request[W]) int { return strings.Compare(a.key, b.key) })
	sorted = slices.CompactFunc(sorted, func(a, b *request[W]) bool { return a.key == b.key }) // twins
	n := len(sorted)
	keys, fingerprints, locations, bodies, statuses := make([]string, n), make([][]byte, n), make([]string, n), make([][]byte, n), make([]int64, n)
	of, claimed := make(map[string]*request[W], n), make(map[string]*request[W], n)
	for i, r := range sorted {
		keys[i], fingerprints[i], locations[i], bodies[i], statuses[i] = r.key, r.fingerprint, r.first.Location, r.first.Body, int64(r.first.Status)
		of[r.key] = r
	}
	err := tx.InsertReturning(ctx, "idempotency", `on conflict (key) do update
		set fingerprint = excluded.fingerprint, status = excluded.status, location = excluded.location, body = excluded.body, expires_at = excluded.expires_at
		where idempotency.expires_at <= now_micros() returning key`, func(r db.Scanner) error {
		var key string
		err := r.Scan(&key)
		claimed[key] = of[key]
		return err
	}, db.Column{Name: "key", Values: keys}, db.Column{Name: "fingerprint", Values: fingerprints}, db.Column{Name: "status", Values: statuses},
		db.Column{Name: "location", Values: locations}, db.Column{Name: "body", Values: bodies},
		db.Column{Name: "expires_at", Values: db.SQL(fmt.Sprintf("now_micros() + %d", b.keys.ttl.Microseconds()))})
	if err == nil {
		err = tx.Await(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("claim keys: %w", err)
	}
	return claimed, nil
}

// replay gives requests the answers that are stored under their keys.
func (b *Batch[W]) replay(ctx context.Context, tx *db.Tx, all []*request[W]) error {
	for _, r := range all {
		a, err := stored(ctx, tx, r.key, r.fingerprint)
		switch {
		case err == nil:
			r.answer, r.replayed = a, true
		case errors.Is(err, ErrMismatch), errors.Is(err, ErrInFlight):
			r.err = err
		default:
			return err
		}
	}
	return nil
}

// find looks an answer up that has not expired.
func (k *Keys) find(ctx context.Context, key string, fingerprint []byte) (a Answer, found bool, err error) {
	a, err = scanStored(k.db.QueryRow(ctx, selectStored+` and expires_at > now_micros()`, key), fingerprint)
	if errors.Is(err, sql.ErrNoRows) {
		return Answer{}, false, nil
	}
	return a, err == nil, err
}
