package console

import (
	"context"
	"errors"
	"fmt"
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
	Refused  []Refusal `json:"refused,omitempty"` // with DryRun: those that would be
	Items    []Waiting `json:"items"`             // the first of those that match
	Next     *ID       `json:"next,omitempty"`    // after an error: another pass goes on behind it
}

// Refusal says why an event was not redriven or dropped.
type Refusal struct {
	ID  ID     `json:"id"`
	Why string `json:"why"`
	// Behind is the event that is in the way: the first of the key.
	Behind *ID `json:"behind,omitempty"`
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

// RedriveAll runs a pass. It ends with those that match when it begins, which it counts
// first: what dies again meanwhile is left for another pass. A service that fails keeps none
// of the others from it.
func (c *Console) RedriveAll(ctx context.Context, p Pass) (Redrives, error) {
	total := Redrives{DryRun: p.DryRun, Items: []Waiting{}}
	services, err := c.chosen(ctx, p.Filter.Service)
	if err != nil {
		return total, err
	}
	until, errs := c.ends(ctx, services, p, &total)
	at := p.After
	progress := p.Progress
	p.Progress = func(so Redrives, last ID) {
		if len(errs) == 0 {
			at = last
		}
		if progress != nil {
			progress(so, last)
		}
	}
	for _, s := range services {
		if end, some := until[s.Name]; some {
			if err := c.redriveAll(ctx, s, p, end, &total); err != nil {
				errs = append(errs, explain(err))
			}
		}
	}
	errs = append(errs, ctx.Err())
	if err = errors.Join(errs...); err != nil && at.N > 0 {
		total.Next = &at
	}
	return total, err
}

// ends finds out where a pass ends in each service that has some that match, and how many
// those are. A dry run ends by itself.
func (c *Console) ends(ctx context.Context, services []*Service, p Pass, total *Redrives) (until map[string]int64, errs []error) {
	until = map[string]int64{}
	for _, s := range services {
		if s.Name < p.After.Service {
			continue
		}
		if p.DryRun {
			until[s.Name] = 0
			continue
		}
		last, n, err := s.last(ctx, p)
		if err != nil {
			errs = append(errs, explain(err))
		}
		if last > 0 {
			total.Matched += n
			until[s.Name] = last
		}
	}
	return until, errs
}

// after is where a pass begins in a service.
func (p *Pass) after(s *Service) int64 {
	if p.After.Service == s.Name {
		return p.After.N
	}
	return 0
}

func (c *Console) redriveAll(ctx context.Context, s *Service, p Pass, until int64, total *Redrives) error {
	from := p.after(s)
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
		c.add(ctx, total, s, p, page)
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

// last is the highest ID of those that match, and n how many they are.
func (s *Service) last(ctx context.Context, p Pass) (last int64, n int, err error) {
	p.DryRun = true
	for from := p.after(s); ; {
		page, err := s.redrivePage(ctx, p, from, 0, maxPage)
		if err != nil {
			return 0, 0, err
		}
		n += page.Matched
		if len(page.Items) > 0 {
			last = page.Items[len(page.Items)-1].ID
		}
		if page.Next == 0 {
			return last, n, nil
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
	send := s.post
	if p.DryRun {
		send = s.ask
	}
	err = send(ctx, "/admin/waiting/redrive", map[string]any{
		"filter": p.Filter, "dry_run": p.DryRun, "limit": limit, "after": after, "until": until, "force": p.Force,
	}, &page)
	return page, err
}

func (c *Console) add(ctx context.Context, r *Redrives, s *Service, p Pass, page redrivePage) {
	if p.DryRun {
		r.Matched += page.Matched
		for _, a := range page.Items {
			w := a.of(s)
			if refused := c.refusal(ctx, &w, p.Force); refused != nil {
				r.Refused = append(r.Refused, *refused)
			}
		}
	}
	r.Redriven += page.Redriven
	for _, text := range page.Refused {
		number, why, _ := strings.Cut(text, ": ")
		n, _ := strconv.ParseInt(number, 10, 64)
		refused := Refusal{ID: ID{s.Name, n}}
		refused.Why, refused.Behind = inOurWords(why, s.Name)
		r.Refused = append(r.Refused, refused)
	}
	for _, a := range page.Items[:min(len(page.Items), max(0, itemsShown-len(r.Items)))] {
		r.Items = append(r.Items, a.of(s))
	}
}

// inOurWords is a service's refusal with what is typed here, and the event that is in the way.
func inOurWords(why, service string) (text string, behind *ID) {
	why = strings.Replace(why, "with force", "with --force", 1)
	var n int64
	if _, err := fmt.Sscanf(why, "event %d of the key comes first", &n); err != nil {
		return why, nil
	}
	id := ID{service, n}
	return id.String() + " of its key comes first", &id
}

// refusal says why a redrive or drop of the event would be refused; nil if it would not be.
func (c *Console) refusal(ctx context.Context, w *Waiting, force bool) *Refusal {
	r := &Refusal{ID: w.ID}
	switch {
	case w.State == "behind":
		r.Why = "another event of its key comes first"
		queue, _, err := c.Queue(ctx, w)
		first := slices.IndexFunc(queue, func(q Waiting) bool { return q.State != "set aside" })
		if err == nil && first >= 0 && queue[first].ID != w.ID {
			r.Behind = &queue[first].ID
			r.Why = r.Behind.String() + " of its key comes first"
		}
	case w.State == "running":
		r.Why = "it is running now"
	case w.NeedsForce && !force:
		r.Why = "redriven " + counted(w.Redrives, "time") + " before: only with --force"
	default:
		return nil
	}
	return r
}

// RedriveEach redrives single events, or with dry shows them. One that cannot be redriven
// keeps none of the others from it.
func (c *Console) RedriveEach(ctx context.Context, ids []ID, force, dry bool) (Redrives, error) {
	total := Redrives{DryRun: dry, Items: []Waiting{}}
	var errs []error
	for _, id := range ids {
		w, err := c.Show(ctx, id, false)
		if err == nil {
			total.Matched++
			w = w.brief()
			if dry {
				if refused := c.refusal(ctx, &w, force); refused != nil {
					total.Refused = append(total.Refused, *refused)
				}
			} else {
				var now ID
				now, err = c.Redrive(ctx, id, force)
				w = w.moved(now.N)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		total.Items = append(total.Items, w)
		if !dry {
			total.Redriven++
		}
	}
	return total, errors.Join(errs...)
}
