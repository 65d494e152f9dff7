package inbox

import (
	"context"
	"errors"

	"example.com/keyline/pkg/db"
)

// handle runs the handlers: all at once, and an error is the transaction's; or, if that has failed
// before, one by one, so that the failing event waits and the others are done.
func (t *taking) handle(ctx context.Context, tx *db.Tx) error {
	if !t.oneByOne {
		for _, wave := range waves(t.split()) {
			if err := t.wave(ctx, tx, wave); err != nil {
				return err
			}
		}
		return nil
	}
	for _, it := range t.fresh {
		if !t.runnable(it) {
			continue
		}
		err := tx.Savepoint(ctx, func() error { return t.wave(ctx, tx, []*item{it}) })
		if t.lost(ctx, err) {
			return err
		}
		switch {
		case err != nil:
			t.withdraw(it)
			t.fail(it, err)
		case it.handler.slow == nil:
			t.breaker.worked(it.meta.Type)
		}
	}
	return nil
}

// lost reports whether an error ends the whole transaction: it conflicts with others, its
// connection is gone, or the service stops.
func (in *Inbox) lost(ctx context.Context, err error) bool {
	var broken *db.BrokenError
	return err != nil && (db.IsConflict(err) || errors.As(err, &broken) || ctx.Err() != nil)
}

// waves orders events so that many keys can be worked on with one statement: the first
// event of every key, then the second, and so on. Only the order within a key matters.
func waves(items []*item) [][]*item {
	seen := map[string]int{}
	var waves [][]*item
	for _, it := range items {
		n := seen[it.key()]
		seen[it.key()]++
		if n == len(waves) {
			waves = append(waves, nil)
		}
		waves[n] = append(waves[n], it)
	}
	return waves
}

// wave runs events of different keys.
func (t *taking) wave(ctx context.Context, tx *db.Tx, items []*item) error {
	var many []*item
	for _, it := range items {
		if it.handler.one == nil {
			many = append(many, it)
		} else if err := t.one(ctx, tx, it); err != nil {
			return err
		}
	}
	for _, batch := range byHandler(many) {
		run := t.batch
		if batch[0].handler.slow != nil {
			run = t.beginSlow
		}
		if err := run(ctx, tx, batch); err != nil {
			return err
		}
	}
	return nil
}

// byHandler parts events by their handlers, in the order in which these come first.
func byHandler[T interface{ handledBy() *handler }](all []T) (batches [][]T) {
	at := map[*handler]int{}
	for _, one := range all {
		i, ok := at[one.handledBy()]
		if !ok {
			i = len(batches)
			at[one.handledBy()] = i
			batches = append(batches, nil)
		}
		batches[i] = append(batches[i], one)
	}
	return batches
}

func (it *item) handledBy() *handler { return it.handler }

func (t *taking) beginSlow(ctx context.Context, tx *db.Tx, items []*item) error {
	all := make([]*effect, len(items))
	for i, it := range items {
		all[i] = t.slow[it]
	}
	return t.begin(ctx, tx, all)
}

func (t *taking) one(ctx context.Context, tx *db.Tx, it *item) error {
	ctx, span := t.span(ctx, it)
	err := guard(func() error { return it.handler.one(ctx, tx, it.delivery(span)) })
	span.done(err)
	t.spans = append(t.spans, span)
	return err
}

func (t *taking) batch(ctx context.Context, tx *db.Tx, items []*item) error {
	ds := make([]delivery, len(items))
	open := make([]*processSpan, len(items))
	for i, it := range items {
		_, open[i] = t.span(ctx, it)
		ds[i] = it.delivery(open[i])
	}
	err := guard(func() error { return items[0].handler.batch(ctx, tx, ds) })
	for _, span := range open {
		span.done(err)
	}
	t.spans = append(t.spans, open...)
	return err
}
