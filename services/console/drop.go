package console

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
)

// Drops says what many drops have come to.
type Drops struct {
	DryRun  bool      `json:"dry_run"`
	Matched int       `json:"matched"`
	Dropped int       `json:"dropped"`
	Refused []Refusal `json:"refused,omitempty"` // those behind another one; with DryRun all that would be
	Items   []Waiting `json:"items"`             // the first of those that were dropped, with DryRun of those that match
}

// Drop removes a waiting event for good; why is for the service's log.
func (c *Console) Drop(ctx context.Context, id ID, why string) error {
	s, err := c.service(ctx, id.Service)
	if err != nil {
		return err
	}
	return about(s.post(ctx, "/admin/waiting/"+strconv.FormatInt(id.N, 10)+"/drop", map[string]string{"reason": why}, nil), id)
}

// DropEach removes single events, or with dry only shows them. One that cannot be dropped
// keeps none of the others from it.
func (c *Console) DropEach(ctx context.Context, ids []ID, why string, dry bool) (Drops, error) {
	var all []Waiting
	var errs []error
	for _, id := range ids {
		w, err := c.Show(ctx, id, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, w.brief())
	}
	done, err := c.drop(ctx, all, why, dry)
	return done, errors.Join(append(errs, err)...)
}

// DropAll removes those that match, or with dry only tells which. One that cannot be dropped
// keeps none of the others from it.
func (c *Console) DropAll(ctx context.Context, f Filter, why string, dry bool) (Drops, error) {
	all, _, err := c.List(ctx, f, ID{}, math.MaxInt)
	done, err2 := c.drop(ctx, all, why, dry)
	return done, errors.Join(err, err2)
}

func (c *Console) drop(ctx context.Context, all []Waiting, why string, dry bool) (Drops, error) {
	done := Drops{DryRun: dry, Matched: len(all), Items: []Waiting{}}
	var errs []error
	for i := range all { // before one is dropped: then the next of its key comes first, and may well work
		if w := &all[i]; dry || w.State == "behind" {
			if r := c.refusal(ctx, w, true); r != nil {
				done.Refused = append(done.Refused, *r)
			}
		}
	}
	for i := range all {
		w := &all[i]
		refused := slices.IndexFunc(done.Refused, func(r Refusal) bool { return r.ID == w.ID })
		switch {
		case ctx.Err() != nil:
			return done, errors.Join(append(errs, ctx.Err())...)
		case dry:
		case refused >= 0:
			f := inTheWay(done.Refused[refused:refused+1], "dropped")
			f.Text = w.ID.String() + " is not dropped: " + done.Refused[refused].Why
			errs = append(errs, f)
			continue
		default:
			if err := c.Drop(ctx, w.ID, why); err != nil {
				errs = append(errs, err)
				continue
			}
			done.Dropped++
		}
		if len(done.Items) < itemsShown {
			done.Items = append(done.Items, *w)
		}
	}
	return done, errors.Join(errs...)
}
