package inbox

// Runs reports whether Run has begun.
func (in *Inbox) Runs() bool {
	in.effects.mu.Lock()
	defer in.effects.mu.Unlock()
	return in.effects.ctx != nil
}
