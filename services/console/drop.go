package console

import (
	"context"
	"errors"
	"math"
	"strconv"
)

// Drops says what many drops have come to.
type Drops struct {
	DryRun  bool      `json:"dry_run"`
	Matched int       `json:"matched"`
	Dropped int       `json:"dropped"`
	Items   []Waiting `json:"items"` // the first of those that match
}

// Drop removes a waiting event for good; why is for the service's log.
func (c *Console) Drop(ctx context.Context, id ID, why string) error {
	s, err := c.service(ctx, id.Service)
	if err != nil {
		return err
	}
	return about(s.post(ctx, "/admin/waiting/"+strconv.FormatInt(id.N, 10)+"/drop", map[string]string{"reason": why}, nil), id)
}

// DropAll removes those that match, or with dry only tells which. One that cannot be dropped
// keeps none of the others from it.
func (c *Console) DropAll(ctx context.Context, f Filter, why string, dry bool) (Drops, error) {
	all, _, err := c.List(ctx, f, ID{}, math.MaxInt)
	done := Drops{DryRun: dry, Matched: len(all), Items: append([]Waiting{}, all[:min(len(all), itemsShown)]...)}
	errs := []error{err}
	for _, w := range all {
		if dry || ctx.Err() != nil {
			break
		}
		if err := c.Drop(ctx, w.ID, why); err != nil {
			errs = append(errs, err)
			continue
		}
		done.Dropped++
	}
	return done, errors.Join(append(errs, ctx.Err())...)
}
