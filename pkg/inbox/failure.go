package inbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
)

// Permanent marks an error that trying again cannot mend: the event is a dead letter at
// once.
func Permanent(err error) error { return &permanentError{err} }

// Unavailable marks an error of something that the handler needs and that is down: the
// event waits without counting attempts, one event probes, and all resume together.
func Unavailable(err error) error { return &unavailableError{err} }

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// classed reports whether an error says what is to become of its event.
func classed(err error) bool {
	var perm *permanentError
	var away *unavailableError
	return errors.As(err, &perm) || errors.As(err, &away)
}

// state is where a key stands.
type state string

const (
	retrying    state = "retrying"
	running     state = "running"
	unavailable state = "unavailable"
	dead        state = "dead"
)

// The reasons of dead letters, as their dlt-reason says.
const (
	reasonUndecodable   = "undecodable"
	reasonUnknownSchema = "unknown-schema"
	reasonPermanent     = "permanent"
	reasonExhausted     = "exhausted"
)

// verdict is what a failure makes of an event.
type verdict struct {
	state    state
	reason   string // of a dead letter
	setAside bool
	counts   bool // as an attempt
	flood    bool // it would be one dead letter too many in a row
	err      error
}

// floods reports whether the verdict is a dead letter that speaks against the handler.
func (v *verdict) floods() bool {
	return v.state == dead && v.reason != reasonUndecodable && v.reason != reasonUnknownSchema
}

// judge decides what an error makes of an event that has failed attempts times before. A dead
// letter that speaks against its handler is counted.
func (in *Inbox) judge(it *item, err error) verdict {
	v := in.weigh(it, err, in.breaker.deaths(it.meta.Type))
	if v.floods() && !in.breaker.dies(it.meta.Type) { // another's was the last one allowed
		v = in.weigh(it, err, floodAfter)
	}
	return v
}

// weigh is judge when so many of the type have become dead letters in a row.
func (in *Inbox) weigh(it *item, err error, deaths int) verdict {
	v := verdict{state: retrying, counts: true, err: err}
	var perm *permanentError
	var away *unavailableError
	switch {
	case errors.Is(err, codec.ErrUndecodable):
		v.state, v.reason, v.setAside = dead, reasonUndecodable, true
	case errors.Is(err, codec.ErrUnknownSchema):
		v.state, v.reason = dead, reasonUnknownSchema
	case errors.As(err, &perm), errors.Is(err, codec.ErrIncompatible):
		v.state, v.reason = dead, reasonPermanent
	case errors.As(err, &away), errors.Is(err, codec.ErrUnavailable), db.IsTrouble(err):
		v.state, v.counts = unavailable, false
	case it.attempts+1 >= in.cfg.Attempts:
		v.state, v.reason = dead, reasonExhausted
	}
	if deaths >= floodAfter && (v.state == retrying || v.floods()) {
		// One after another: the fault is not the event's. What it needs is a mended service.
		return verdict{state: unavailable, flood: true, err: fmt.Errorf("%d events of the type have died before it: %w", floodAfter, err)}
	}
	if v.state == dead && it.handler != nil && it.handler.skipDead {
		v.setAside = true
	}
	return v
}

// backoff is the pause after that many failures: doubling, capped, and half of it random,
// so that keys which failed together do not come back together.
func (in *Inbox) backoff(attempts int) time.Duration {
	d := in.cfg.MaxBackoff
	if attempts < 30 {
		d = min(d, firstBackoff<<max(0, attempts-1))
	}
	return d/2 + rand.N(d/2+1)
}

// The bounds of what is kept of an error's text, and shown of a key, in bytes.
const (
	maxError = 1000
	maxShown = 100
)

func errorText(err error) string {
	return cut(strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", ""), maxError)
}

// short is a key for the log: any producer can write a long one.
func short(key string) string { return cut(key, maxShown) }

func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}

// guard turns a handler's panic into an error, so that it delays one key like any other.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
