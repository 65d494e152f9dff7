package inbox

import (
	"context"
	"time"

	"example.com/keyline/pkg/event"
)

// Runs reports whether Run has begun.
func (in *Inbox) Runs() bool {
	in.effects.mu.Lock()
	defer in.effects.mu.Unlock()
	return in.effects.ctx != nil
}

// SetRunFor sets for how long effects of a key may follow one another before they are written.
func (in *Inbox) SetRunFor(d time.Duration) { in.runFor = d }

// TakeTogether takes batches in one transaction, as those are that come at the same time.
func (in *Inbox) TakeTogether(ctx context.Context, batches ...event.Batch) error {
	all := make([][]*item, len(batches))
	for i, b := range batches {
		for j := range b.Records {
			all[i] = append(all[i], in.open(ctx, &b.Records[j]))
		}
	}
	return in.takeAll(ctx, all)
}
