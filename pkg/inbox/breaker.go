package inbox

import (
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

type circuit struct {
	next    time.Time // of the probe
	pause   time.Duration
	probing bool
}

const maxProbePause = 15 * time.Second

// floodAfter is how many events of a type in a row may become dead letters of one process.
// Then the handler is at fault, or what it stands on: the events wait as for a dependency,
// instead of becoming thousands of letters that somebody has to redrive.
const floodAfter = 20

// flooded reports whether a type's events die one after another; else it counts one that is
// about to, if it is.
func (b *breaker) flooded(typ string, dies bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead[typ] >= floodAfter {
		return true
	}
	if dies {
		if b.dead == nil {
			b.dead = map[string]int{}
		}
		b.dead[typ]++
	}
	return false
}

// worked notes that a handler has succeeded.
func (b *breaker) worked(typ string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.dead, typ)
}

// isOpen reports whether events of the type should wait without being tried.
func (b *breaker) isOpen(typ string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[typ] != nil
}

// fail notes that a handler could not reach what it needs, and reports whether that is news.
func (b *breaker) fail(typ string, now time.Time) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.open[typ]
	switch {
	case c == nil:
		c = &circuit{pause: firstBackoff}
		if b.open == nil {
			b.open = map[string]*circuit{}
		}
		b.open[typ] = c
		opened = true
	case c.probing:
		c.pause = min(2*c.pause, maxProbePause)
	default:
		return false // one of those that were under way when it opened
	}
	c.next, c.probing = now.Add(c.pause), false
	return opened
}

// succeed closes the circuit and reports whether it was open.
func (b *breaker) succeed(typ string) (wasOpen bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wasOpen = b.open[typ] != nil
	delete(b.open, typ)
	return wasOpen
}

// found opens the circuit of a type whose events wait in the database, because of another
// process or an earlier one; its probe is due at once.
func (b *breaker) found(typ string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		b.open = map[string]*circuit{}
	}
	if b.open[typ] == nil {
		b.open[typ] = &circuit{next: now, pause: firstBackoff}
	}
}

// probe returns a type whose probe is due; the caller tries one event and reports by fail,
// succeed or giveUp.
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

func (b *breaker) states() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	states := map[string]bool{}
	for typ := range b.open {
		states[typ] = true
	}
	return states
}
