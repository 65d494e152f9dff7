package outbox

import "time"

// Tuning is what tests turn; what is 0 stays as it is.
type Tuning struct {
	Window                       int
	Lease, Idle, Retry, Patience time.Duration
	SweepEvery                   time.Duration
}

// Tune changes o before its relay starts.
func (o *Outbox) Tune(t Tuning) *Outbox {
	if t.Window != 0 {
		o.window = t.Window
	}
	if t.Lease != 0 {
		o.lease = t.Lease
	}
	if t.Idle != 0 {
		o.idle = t.Idle
	}
	if t.Retry != 0 {
		o.retry = t.Retry
	}
	if t.Patience != 0 {
		o.patience = t.Patience
	}
	if t.SweepEvery != 0 {
		o.sweepEvery = t.SweepEvery
	}
	return o
}
