package console

import (
	"context"
	"errors"
	"time"
)

// Outcome is what became of an event that was redriven.
type Outcome string

// The outcomes. What still waits may be done yet: its state says what it waits for.
const (
	Done   Outcome = "done"
	Failed Outcome = "failed"
	Waits  Outcome = "waits"
)

// lookEvery is how often redriven events are looked at.
const lookEvery = 100 * time.Millisecond

// Await looks at events that were redriven until each is done or has failed again, at most so
// long, and returns them as they are then. An error says which of them could not be seen.
func (c *Console) Await(ctx context.Context, redriven []Waiting, most time.Duration) ([]Waiting, error) {
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	errs := make([]error, len(redriven))
	for {
		undecided := false
		for i := range redriven {
			if w := &redriven[i]; w.Outcome != Done && w.Outcome != Failed {
				errs[i] = c.look(ctx, w)
				undecided = undecided || w.Outcome == Waits
			}
		}
		if !undecided {
			return redriven, errors.Join(errs...)
		}
		select {
		case <-time.After(lookEvery):
		case <-bounded.Done():
			return redriven, errors.Join(errs...)
		}
	}
}

// look notes what has become of an event.
func (c *Console) look(ctx context.Context, w *Waiting) error {
	w.Outcome = Waits
	now, err := c.Show(ctx, w.ID, false)
	var f *Failure
	switch {
	case errors.As(err, &f) && f.code == exitNone:
		w.Outcome, w.State = Done, "done"
		return nil
	case err != nil:
		return err
	}
	was := w.Was
	*w = now.brief()
	w.Was, w.Outcome = was, Waits
	if w.State == "dead" || w.State == "set aside" {
		w.Outcome = Failed
	}
	return nil
}
