package inbox

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// breaker knows, by event type, what the handlers of this process have found to be down. It
// spares the others the wait; nothing depends on it for correctness, so it is not kept.
type breaker struct {
	mu   sync.Mutex
	open map[string]*circuit
	dead map[string]int // dead letters in a row, without a success in between
}

// circuit is open while events of a type wait for what they need.
type circuit struct {
	next    time.Time // of the probe
	pause   time.Duration
	probing bool

	// blocks: events wait untried, because a dependency is down. If it does not, since dead
	// letters have opened it or nobody knows what has, events that come are tried all the
	// same: the oldest ones may be bad for good, and these must not wait behind them.
	blocks bool
	wave   int       // keys that the next success lets go on, if it does not block
	rested time.Time // from when on one may
}

const (
	maxProbePause = 15 * time.Second
	wavePause     = 50 * time.Millisecond
	maxWave       = 1000
)

// floodAfter is how many events of a type in a row may become dead letters of one process.
// Then the handler is at fault, or what it stands on: the events wait as for a dependency,
// instead of becoming thousands of letters that somebody has to redrive.
const floodAfter = 20

// deaths is how many events of a type have become dead letters in a row.
func (b *breaker) deaths(typ string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead[typ]
}

// dies counts one more, unless that would be a flood.
func (b *breaker) dies(typ string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead[typ] >= floodAfter {
		return false
	}
	b.dead[typ]++
	return true
}

// undo takes back what dies has counted, by type, since it was not committed.
func (b *breaker) undo(died map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for typ, n := range died {
		b.dead[typ] = max(0, b.dead[typ]-n)
	}
	clear(died)
}

// worked notes that a handler has succeeded.
func (b *breaker) worked(typ string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.dead, typ)
}

// admits reports whether an event of the type may be tried, and whether that tells of an open
// circuit then.
func (b *breaker) admits(typ string) (ok, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.open[typ]
	return c == nil || !c.blocks, c != nil
}

// fail notes that a handler could not reach what it needs, or is flooded with dead letters, and
// reports whether that is news.
func (b *breaker) fail(typ string, flood bool, now time.Time) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.open[typ]
	if opened = c == nil; opened {
		c = b.add(typ)
	}
	c.blocks, c.wave = c.blocks || !flood, floodAfter
	switch {
	case opened:
	case c.probing:
		c.pause = min(2*c.pause, maxProbePause)
	default:
		return false // one of those that were under way when it opened
	}
	c.next, c.probing = now.Add(c.pause), false
	return opened
}

func (b *breaker) add(typ string) *circuit {
	c := &circuit{pause: firstBackoff, wave: floodAfter}
	b.open[typ] = c
	return c
}

// everything is more keys than ever wait.
const everything = math.MaxInt32

// succeed notes that an event of the type was handled, and says how many keys may go on: all,
// if a dependency is there again, which closes the circuit; else one wave after the other,
// each twice as large, until [breaker.close]: as many dead letters as a wave has events are
// no flood.
func (b *breaker) succeed(typ string, now time.Time) (wave int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.open[typ]
	switch {
	case c == nil || !c.blocks && now.Before(c.rested):
		return 0
	case c.blocks:
		delete(b.open, typ)
		return everything
	}
	wave, c.wave, c.rested = c.wave, min(2*c.wave, maxWave), now.Add(wavePause)
	c.next, c.pause, c.probing = c.rested, firstBackoff, false // should the wave be done before then
	return wave
}

// close closes a circuit, since nothing waits any more.
func (b *breaker) close(typ string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, typ)
}

// found opens the circuit of a type whose events wait in the database, because of another
// process or an earlier one; its probe is due at once. At a start it may be a flood, which goes
// on then: each start of a service at fault would make some more dead letters otherwise.
func (b *breaker) found(typ string, start bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[typ] == nil {
		b.add(typ).next = now
		if start {
			b.dead[typ] = floodAfter
		}
	}
}

// hurry makes the probe of a type due now, because an operator says so.
func (b *breaker) hurry(typ string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.open[typ]
	if c == nil {
		c = b.add(typ)
	}
	c.next, c.pause = now, firstBackoff
}

// probe returns a type whose probe is due; the caller tries one event and reports by fail,
// succeed, close or giveUp.
func (b *breaker) probe(now time.Time) (typ string, due bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for typ, c := range b.open {
		if !c.probing && !now.Before(c.next) {
			c.probing = true
			return typ, true
		}
	}
	return "", false
}

// giveUp ends a probe that tried nothing.
func (b *breaker) giveUp(typ string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.open[typ]; c != nil && c.probing {
		c.next, c.probing = now.Add(c.pause), false
	}
}

// types are those whose circuits are open.
func (b *breaker) types() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.open))
}
