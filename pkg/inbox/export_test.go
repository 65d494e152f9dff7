package inbox

import "time"

// Runs reports whether Run has begun.
func (in *Inbox) Runs() bool {
	in.effects.mu.Lock()
	defer in.effects.mu.Unlock()
	return in.effects.ctx != nil
}

// SetRunFor sets for how long effects of a key may follow one another before they are written.
func (in *Inbox) SetRunFor(d time.Duration) { in.runFor = d }
