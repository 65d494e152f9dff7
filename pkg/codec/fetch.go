package codec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const (
	fetchTimeout = 2 * time.Second
	saveTimeout  = time.Second
	// A definite answer is asked for again after refusedFor: somebody may register the
	// schema late. A registry that is down is asked again after downFor.
	refusedFor = 30 * time.Second
	downFor    = time.Second
	// So many bytes of schemas are in use at a time, each of which takes some hundred bytes
	// of memory, and so many refused IDs are remembered. Beyond that some are forgotten and
	// asked for again.
	maxInUse   = 1 << 20
	maxRefused = 1000
)

// flight is the look-up of one schema, which all who need it wait for.
type flight struct {
	done      chan struct{}
	writer    *writer
	err       error
	abandoned bool // the one who asked gave up, which says nothing about the schema
}

// refusal is an error that stands for a while.
type refusal struct {
	err   error
	until time.Time
}

func (r refusal) stands() bool { return r.err != nil && time.Now().Before(r.until) }

// writer returns the schema of that ID. Whoever misses it first looks it up for all.
func (c *Codec) writer(ctx context.Context, id int) (*writer, error) {
	for {
		if w := (*c.writers.Load())[id]; w != nil {
			return w, nil
		}
		f, first, err := c.join(id)
		if err != nil {
			return nil, err
		}
		if first {
			return c.fly(ctx, id, f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !f.abandoned {
			return f.writer, f.err
		}
	}
}

// join returns the flight for an ID and whether the caller has to fly it.
func (c *Codec) join(id int) (f *flight, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.refused[id]; r.stands() {
		return nil, false, r.err
	}
	if f = c.flights[id]; f != nil {
		return f, false, nil
	}
	f = &flight{done: make(chan struct{}), err: errors.New("look-up of a schema did not return")}
	c.flights[id] = f
	return f, true, nil
}

func (c *Codec) fly(ctx context.Context, id int, f *flight) (*writer, error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		f.abandoned = f.err != nil && ctx.Err() != nil
		if !f.abandoned {
			c.remember(id, f)
		}
		delete(c.flights, id)
		close(f.done)
	}()
	f.writer, f.err = c.find(ctx, id)
	return f.writer, f.err
}

// remember keeps the outcome of a flight. c.mu is held.
func (c *Codec) remember(id int, f *flight) {
	switch {
	case f.err == nil:
		c.use(id, f.writer)
	case errors.Is(f.err, ErrUnavailable):
		if !c.down.stands() {
			c.down = refusal{errors.Unwrap(f.err), time.Now().Add(downFor)} // without the ID
		}
	default:
		if len(c.refused) >= maxRefused {
			clear(c.refused)
		}
		c.refused[id] = refusal{f.err, time.Now().Add(refusedFor)}
	}
}

// use adds a schema to those in use. c.mu is held.
func (c *Codec) use(id int, w *writer) {
	writers := maps.Clone(*c.writers.Load())
	inUse := w.size
	for _, other := range writers {
		inUse += other.size
	}
	for id, other := range writers {
		if inUse > maxInUse && !other.own {
			inUse -= other.size
			delete(writers, id)
		}
	}
	writers[id] = w
	c.writers.Store(&writers)
}

// find reads a schema from what the store had, or else from the registry, and saves it.
func (c *Codec) find(ctx context.Context, id int) (*writer, error) {
	c.mu.Lock()
	text, stored := c.stored[id]
	c.mu.Unlock()
	if !stored {
		var err error
		if text, err = c.fetch(ctx, id); err != nil {
			return nil, fmt.Errorf("schema %d: %w", id, err)
		}
	}
	w, err := c.newWriter(id, text)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, err)
	}
	if !stored {
		c.log.InfoContext(ctx, "schema fetched", "schema_id", id, "type", w.name)
		c.save(ctx, id, text)
	}
	return w, nil
}

// Recheck is Type for a value that says of itself that it is of another type than its schema: it
// asks the registry again what the schema's ID stands for, and goes by the answer from then on if
// the value is right. A registry that was wrong for a while, or was set up anew, makes that so.
// An ID for which the value is wrong is not asked for again for a second.
func (c *Codec) Recheck(ctx context.Context, value []byte, said string) (string, error) {
	w, _, err := c.open(ctx, value)
	if err != nil {
		return "", err
	}
	if w.name == said {
		return said, nil
	}
	id, _, _ := header.DecodeID(value) // open has read it
	c.mu.Lock()
	asked := time.Since(c.rechecked[id]) < downFor
	c.mu.Unlock()
	if asked {
		return w.name, nil
	}
	text, err := c.fetch(ctx, id)
	if errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("schema %d: %w", id, err)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.remember(id, &flight{err: err})
		return "", err
	}
	var now *writer
	if err == nil {
		now, err = c.newWriter(id, text)
	}
	if err != nil || now.name != said {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.rechecked) >= maxRefused {
			clear(c.rechecked)
		}
		c.rechecked[id] = time.Now()
		return w.name, nil
	}
	c.mu.Lock()
	c.stored = maps.Clone(c.stored) // Verify may be reading it
	delete(c.stored, id)
	c.use(id, now)
	c.mu.Unlock()
	c.log.WarnContext(ctx, "a schema ID stands for another schema now", "schema_id", id, "was", w.name, "is", now.name)
	c.save(ctx, id, text)
	return now.name, nil
}

// fetch asks the registry, unless it was down a moment ago.
func (c *Codec) fetch(ctx context.Context, id int) (string, error) {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if down.stands() {
		return "", down.err
	}
	text, err := c.registry.schema(ctx, id)
	c.count(ctx, err)
	return text, err
}

func (c *Codec) count(ctx context.Context, err error) {
	outcome := "ok"
	switch {
	case errors.Is(err, ErrUnknownSchema):
		outcome = "unknown"
	case errors.Is(err, ErrUnavailable):
		outcome = "unavailable"
	case err != nil:
		outcome = "incompatible"
	}
	c.fetches.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

// save keeps a fetched schema, if it can: without it a restart asks the registry again. It
// waits shortly, for the caller may hold the database's only connection.
func (c *Codec) save(ctx context.Context, id int, text string) {
	if c.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := c.store.SaveSchema(ctx, id, text); err != nil {
		c.log.WarnContext(ctx, "schema not saved", "schema_id", id, "error", err)
	}
}
