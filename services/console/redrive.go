package console

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Redrives says what many redrives have come to.
type Redrives struct {
	DryRun   bool      `json:"dry_run"`
	Matched  int       `json:"matched"`
	Redriven int       `json:"redriven"`
	Refused  []Refusal `json:"refused,omitempty"`
	Items    []Waiting `json:"items,omitempty"` // the first of those that match
}

// Refusal says why an event was not redriven.
type Refusal struct {
	ID  ID     `json:"id"`
	Why string `json:"why"`
}

// itemsShown is how many of the events that match are kept for the answer.
const itemsShown = 100

// Pass is a redrive of all dead letters that match, service by service, in the order of their
// IDs.
type Pass struct {
	Filter Filter
	After  ID      // what is not above it is left out
	Rate   float64 // events per second; 0 is as fast as the services can
	Force  bool    // those too that were redriven ten times
	DryRun bool
	// Progress, if set, hears of every step: the last event that was dealt with.
	Progress func(so Redrives, last ID)
}

// RedriveAll runs a pass. It ends with those that match when it begins: what dies again
// meanwhile is left for another pass. After an error, or when ctx ends, the progress last
// heard of is where another pass goes on.
func (c *Console) RedriveAll(ctx context.Context, p Pass) (Redrives, error) {
	total := Redrives{DryRun: p.DryRun}
	services, err := c.chosen(ctx, p.Filter.Service)
	if err != nil {
		return total, err
	}
	var errs []error
	for _, s := range services {
		if s.Name < p.After.Service {
			continue
		}
		if err := s.redriveAll(ctx, p, &total); err != nil {
			errs = append(errs, explain(err))
		}
	}
	return total, errors.Join(append(errs, ctx.Err())...)
}

func (s *Service) redriveAll(ctx context.Context, p Pass, total *Redrives) error {
	from := int64(0)
	if p.After.Service == s.Name {
		from = p.After.N
	}
	until := int64(0)
	if !p.DryRun { // first find out where the pass ends
		last, err := s.last(ctx, p, from)
		if err != nil || last == 0 {
			return err
		}
		until = last
	}
	step := maxPage
	if p.Rate > 0 && !p.DryRun {
		step = int(min(max(p.Rate, 1), 100))
	}
	for {
		begun := time.Now()
		page, err := s.redrivePage(ctx, p, from, until, step)
		if err != nil {
			return err
		}
		total.add(s, page)
		if n := len(page.Items); n > 0 {
			from = page.Items[n-1].ID
			if p.Progress != nil {
				p.Progress(*total, ID{s.Name, from})
			}
		}
		if page.Next == 0 {
			return nil
		}
		from = page.Next
		if err := pace(ctx, begun, p, len(page.Items)); err != nil {
			return err
		}
	}
}

// pace waits as long as n events may take.
func pace(ctx context.Context, begun time.Time, p Pass, n int) error {
	if p.Rate <= 0 || p.DryRun {
		return ctx.Err()
	}
	select {
	case <-time.After(time.Until(begun.Add(time.Duration(float64(n) / p.Rate * float64(time.Second))))):
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// last is the highest ID of those that match.
func (s *Service) last(ctx context.Context, p Pass, from int64) (last int64, err error) {
	p.DryRun = true
	for {
		page, err := s.redrivePage(ctx, p, from, 0, maxPage)
		if err != nil {
			return 0, err
		}
		if n := len(page.Items); n > 0 {
			last = page.Items[n-1].ID
		}
		if page.Next == 0 {
			return last, nil
		}
		from = page.Next
	}
}

type redrivePage struct {
	Matched, Redriven int
	Refused           []string
	Items             []answered
	Next              int64
}

func (s *Service) redrivePage(ctx context.Context, p Pass, after, until int64, limit int) (page redrivePage, err error) {
	err = s.post(ctx, "/admin/waiting/redrive", map[string]any{
		"filter": p.Filter, "dry_run": p.DryRun, "limit": limit, "after": after, "until": until, "force": p.Force,
	}, &page)
	return page, err
}

func (r *Redrives) add(s *Service, page redrivePage) {
	r.Matched += page.Matched
	r.Redriven += page.Redriven
	for _, text := range page.Refused {
		number, why, _ := strings.Cut(text, ": ")
		n, _ := strconv.ParseInt(number, 10, 64)
		r.Refused = append(r.Refused, Refusal{ID{s.Name, n}, why})
	}
	for _, a := range page.Items[:min(len(page.Items), max(0, itemsShown-len(r.Items)))] {
		r.Items = append(r.Items, a.of(s))
	}
}

// RedriveEach redrives single events, or with dry shows them.
func (c *Console) RedriveEach(ctx context.Context, ids []ID, force, dry bool) (total Redrives, err error) {
	total.DryRun = dry
	for _, id := range slices.Compact(ids) {
		w, err := c.Show(ctx, id, false)
		if err != nil {
			return total, err
		}
		w.Headers, w.Event = nil, nil
		total.Matched++
		total.Items = append(total.Items, w)
		if dry {
			continue
		}
		if err := c.Redrive(ctx, id, force); err != nil {
			return total, err
		}
		total.Redriven++
	}
	return total, nil
}
