package codec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/avro"
)

// Verify finds the registry ID of each payload's newest schema, so that Encode works, and
// saves it in the Store; it registers nothing. While the registry cannot be reached, IDs that
// the Store has from an earlier Verify do. The error names the subject and what to do, and is
// ErrUnavailable if trying again may help. Verify blocks for at most 5 s a payload, and can
// be called again.
func (c *Codec) Verify(ctx context.Context) error {
	stored, err := c.load(ctx)
	if err != nil {
		return err
	}
	var down error // one long wait is enough
	for _, r := range c.order {
		id, found := 0, false
		err := down
		if err == nil {
			id, found, err = c.registry.lookup(ctx, r.subject, r.text)
		}
		switch {
		case errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
			down = err
			if id, found = idOf(stored, r.text); !found {
				return fmt.Errorf("verify %s: not kept from an earlier start: %w", r.subject, err)
			}
			c.log.WarnContext(ctx, "schema registry unavailable, using the schema ID kept", "subject", r.subject, "error", err)
		case err != nil:
			return fmt.Errorf("verify %s: %w", r.subject, err)
		case !found:
			return fmt.Errorf("verify %s: the registry does not have this schema: provision the topics and schemas of this release first", r.subject)
		case id <= 0 || id > math.MaxInt32:
			return fmt.Errorf("verify %s: the registry answered with the schema ID %d", r.subject, id)
		case stored[id] != r.text:
			if err := c.keep(ctx, id, r, stored); err != nil {
				return fmt.Errorf("verify %s: %w", r.subject, err)
			}
		}
		c.verified(id, r)
	}
	return nil
}

// load returns what the store has. It is asked once.
func (c *Codec) load(ctx context.Context) (map[int]string, error) {
	c.mu.Lock()
	stored := c.stored
	c.mu.Unlock()
	if stored != nil || c.store == nil {
		return stored, nil
	}
	stored, err := c.store.LoadSchemas(ctx)
	if err != nil {
		return nil, fmt.Errorf("load schemas: %w", err)
	}
	if stored == nil {
		stored = make(map[int]string)
	}
	c.mu.Lock()
	c.stored = stored
	c.mu.Unlock()
	return stored, nil
}

func idOf(stored map[int]string, text string) (int, bool) {
	for id, t := range stored {
		if t == text {
			return id, true
		}
	}
	return 0, false
}

// keep saves a verified schema, unless the store says otherwise: then it was filled from
// another registry, and what it says of other IDs is wrong too.
func (c *Codec) keep(ctx context.Context, id int, r *reader, stored map[int]string) error {
	if other, ok := idOf(stored, r.text); ok {
		return otherRegistry(id, other, r.name)
	}
	if text, ok := stored[id]; ok {
		old, err := avro.Parse(text)
		if err != nil || !bytes.Equal(old.Canonical(), r.schema.Canonical()) {
			return otherRegistry(id, id, FullName(text))
		}
	}
	if c.store == nil {
		return nil
	}
	if err := c.store.SaveSchema(ctx, id, r.text); err != nil {
		return fmt.Errorf("save schema %d: %w", id, err)
	}
	return nil
}

func otherRegistry(id, kept int, name string) error {
	return fmt.Errorf("its ID is %d, but the database keeps %s under %d, so it belongs to another registry: use that one, or empty the database's table of schemas", id, name, kept)
}

func (c *Codec) verified(id int, r *reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.use(id, &writer{name: r.name, tree: r.tree, reader: r, resolved: r.schema, straight: r.decoder(r.tree), size: len(r.text), own: true})
	r.id.Store(int64(id))
}
