// Package idempotency lets a client repeat a request without repeating its effect: it runs
// a function in a transaction and stores its answer in the same one.
//
//	key, err := idempotency.ParseKey(r.Header.Get("Idempotency-Key"))
//	…
//	answer, replayed, err := keys.Do(ctx, "POST /v1/orders "+key, fingerprint,
//		func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) { … })
//
// # Why the key's row and the effect are one transaction
//
// Context: a key that is noted before the work stays behind when the process dies, and one
// that is noted after it lets the work happen twice. Decision: the row is inserted first, in
// the transaction of the work; a twin that comes meanwhile waits for it at the unique key.
// Nothing is stored of work that failed. Cost: a twin holds a connection while it waits, at
// most for two seconds.
//
// # Why requests share transactions
//
// Context: a commit waits for the disk, and a request alone makes half a dozen round trips.
// Decision: [Batch] lets the requests that come while a transaction is under way share the next
// one; what they are answered is decided before it, so that keys and answers are one insert. If
// it fails, each of its requests is tried alone. Cost: a request that fails there, and one whose
// twin is under way in another process, delay the others of their transaction once.
package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"example.com/keyline/pkg/db"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the tables of this package, for [db.DB.Migrate].
var Migrations = db.Migrations{Owner: "idempotency", Files: files}

// Errors that callers branch on.
var (
	// ErrKey is the error of a header that is no idempotency key: 400.
	ErrKey = errors.New("must be given: 1 to 255 printable ASCII characters, bare or in double quotes")
	// ErrMismatch is the error of a key that was used for another request: 422.
	ErrMismatch = errors.New("the key was used for another request")
	// ErrInFlight is the error of a key whose first request is still running: 409.
	ErrInFlight = errors.New("the first request with the key is still running")
)

// Answer is what a request was answered.
type Answer struct {
	Status   int
	Location string // may be empty
	Body     []byte // JSON
}

// Write sends the answer, with the header Idempotency-Replayed if it is a stored one.
func (a Answer) Write(w http.ResponseWriter, replayed bool) {
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	if a.Location != "" {
		w.Header().Set("Location", a.Location)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // a client that has gone can ask again
}

// Keys remembers answers by key. It is safe for concurrent use.
type Keys struct {
	db  *db.DB
	ttl time.Duration
}

// New remembers answers in d for the time ttl. Its table is made by [Migrations].
func New(d *db.DB, ttl time.Duration) *Keys { return &Keys{d, ttl} }

const (
	maxKey     = 255
	cleanChunk = 10_000 // answers that one statement removes
	// lockWait is how long one attempt waits for a twin; InTx makes five.
	lockWait = 400 * time.Millisecond
)

// Do runs fn in a transaction and stores its answer beside its effect, or returns the answer
// that is stored under the key; replayed says which. fingerprint identifies the request. The
// error is ErrMismatch, ErrInFlight (a twin was waited for, for some seconds), or fn's, and
// then nothing is stored. fn may be run again after a conflict with other transactions.
func (k *Keys) Do(ctx context.Context, key string, fingerprint []byte, fn func(context.Context, *db.Tx) (Answer, error)) (a Answer, replayed bool, err error) {
	waiting := false
	err = k.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
		waiting = true
		if replayed, err = k.claim(ctx, tx, key, fingerprint); err != nil {
			return err
		}
		waiting = false
		if replayed {
			a, err = stored(ctx, tx, key, fingerprint)
			return err
		}
		if a, err = fn(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update idempotency set status = $2, location = $3, body = $4 where key = $1`, key, a.Status, a.Location, a.Body)
		return err
	})
	switch {
	case waiting && db.IsConflict(err):
		return Answer{}, false, ErrInFlight
	case err != nil:
		return Answer{}, false, err
	}
	return a, replayed, nil
}

// claim inserts the key's row, or takes over an expired one, or reports that it is there. It
// waits for a twin's transaction to end.
func (k *Keys) claim(ctx context.Context, tx *db.Tx, key string, fingerprint []byte) (taken bool, err error) {
	if err := tx.LockTimeout(ctx, lockWait); err != nil {
		return false, err
	}
	n, err := tx.Exec(ctx, `insert into idempotency (key, fingerprint, status, location, body, expires_at)
		values ($1, $2, 0, '', $3, now_micros() + $4)
		on conflict (key) do update set fingerprint = excluded.fingerprint, expires_at = excluded.expires_at
		where idempotency.expires_at <= now_micros()`, key, fingerprint, []byte{}, k.ttl.Microseconds())
	if err != nil {
		return false, fmt.Errorf("claim a key: %w", err)
	}
	return n == 0, nil
}

const selectStored = `select fingerprint, status, location, body from idempotency where key = $1`

func stored(ctx context.Context, tx *db.Tx, key string, fingerprint []byte) (Answer, error) {
	a, err := scanStored(tx.QueryRow(ctx, selectStored, key), fingerprint)
	if errors.Is(err, sql.ErrNoRows) { // it expired this moment
		return a, ErrInFlight
	}
	return a, err
}

// scanStored reads an answer, unless it is another request's: ErrMismatch.
func scanStored(row interface{ Scan(...any) error }, fingerprint []byte) (a Answer, err error) {
	var first []byte
	if err := row.Scan(&first, &a.Status, &a.Location, &a.Body); err != nil {
		return Answer{}, fmt.Errorf("read a stored answer: %w", err)
	}
	if !bytes.Equal(first, fingerprint) {
		return Answer{}, ErrMismatch
	}
	return a, nil
}

// Clean removes expired answers. Call it now and then; an expired answer is not given
// whether it has been removed or not.
func (k *Keys) Clean(ctx context.Context) error {
	for {
		n, err := k.db.Exec(ctx, `delete from idempotency where key in (select key from idempotency where expires_at <= now_micros() limit $1)`, cleanChunk)
		if err != nil {
			return fmt.Errorf("remove expired keys: %w", err)
		}
		if n < cleanChunk {
			return nil
		}
	}
}

// ParseKey reads an Idempotency-Key header. The quoted form, a string of RFC 9651 as
// draft-ietf-httpapi-idempotency-key-header-07 has it, and the bare form are the same key.
// The error is [ErrKey].
func ParseKey(header string) (string, error) {
	key := strings.Trim(header, " \t")
	if strings.HasPrefix(key, `"`) {
		var ok bool
		if key, ok = unquote(key); !ok {
			return "", ErrKey
		}
	}
	if len(key) < 1 || len(key) > maxKey {
		return "", ErrKey
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return "", ErrKey
		}
	}
	return key, nil
}

// unquote reads a string of RFC 9651, section 3.3.3: only \" and \\ are escapes.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", false
}
