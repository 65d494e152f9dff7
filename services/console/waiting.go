package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Filter selects waiting events; an empty field selects all.
type Filter struct {
	Service string `json:"-"`
	State   string `json:"state,omitempty"`
	Topic   string `json:"topic,omitempty"`
	Key     string `json:"key,omitempty"`
	Type    string `json:"type,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Error   string `json:"error,omitempty"` // a part of its text
}

func (f Filter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"state": f.State, "topic": f.Topic, "key": f.Key, "type": f.Type, "reason": f.Reason, "error": f.Error,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// Group is what waits in a service for one cause.
type Group struct {
	Service string    `json:"service"`
	Group   string    `json:"group"` // the consumer group
	Topic   string    `json:"topic"`
	State   string    `json:"state"`
	Type    string    `json:"type"`
	Reason  string    `json:"reason,omitempty"`
	Error   string    `json:"error,omitempty"` // without what differs between them
	Held    string    `json:"held,omitempty"`  // why events of the type are not tried now
	Count   int64     `json:"count"`
	Oldest  time.Time `json:"oldest"`
	Example ID        `json:"example"`
}

// Waiting is a waiting event.
type Waiting struct {
	ID            ID                `json:"id"`
	Group         string            `json:"group"`
	Topic         string            `json:"topic"`
	Partition     int32             `json:"partition"`
	Offset        int64             `json:"offset"`
	Key           string            `json:"key"`
	Type          string            `json:"type"`
	EventID       string            `json:"event_id"`
	TraceID       string            `json:"trace_id,omitempty"`
	State         string            `json:"state"`
	Reason        string            `json:"reason,omitempty"`
	Error         string            `json:"error,omitempty"`
	Attempts      int               `json:"attempts"`
	Redrives      int               `json:"redrives"`
	TakenAt       time.Time         `json:"taken_at"`
	FirstFailedAt *time.Time        `json:"first_failed_at,omitempty"`
	FailedAt      *time.Time        `json:"failed_at,omitempty"`
	Due           *time.Time        `json:"due,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
	Event         json.RawMessage   `json:"event,omitempty"`
	Undecoded     string            `json:"undecoded,omitempty"`
	Size          int               `json:"value_bytes,omitempty"`
	Value         []byte            `json:"value,omitempty"`       // if it cannot be decoded and personal data are asked for
	NeedsForce    bool              `json:"needs_force,omitempty"` // it was redriven so often that another time wants force
	Held          string            `json:"held,omitempty"`        // why events of its type are not tried now
	Was           *ID               `json:"was,omitempty"`         // before it was redriven, if that changed it
	Outcome       Outcome           `json:"outcome,omitempty"`     // of its redrive
}

// place is where the event is in its topic, as it is typed for tail and replay.
func (w *Waiting) place() string { return position(w.Topic, w.Partition, w.Offset) }

func position(topic string, partition int32, offset int64) string {
	return topic + "/" + strconv.Itoa(int(partition)) + "@" + strconv.FormatInt(offset, 10)
}

// answered is a waiting event as its service tells it: the ID is a number there.
type answered struct {
	Waiting
	ID    int64 `json:"id"`
	NewID int64 `json:"new_id"`
}

func (a answered) of(s *Service) Waiting {
	a.Waiting.ID = ID{s.Name, a.ID}
	return a.Waiting.moved(a.NewID)
}

// moved is the event under the number that its redrive gave it, if that is another one.
func (w Waiting) moved(to int64) Waiting {
	if to > 0 && to != w.ID.N {
		was := w.ID
		w.Was, w.ID.N = &was, to
	}
	return w
}

// brief leaves out what only one event is shown with.
func (w Waiting) brief() Waiting {
	w.Headers, w.Event, w.Undecoded, w.Value, w.Size = nil, nil, "", nil, 0
	return w
}

// Summary tells what waits, by service and cause. What some services answer is told though
// others fail.
func (c *Console) Summary(ctx context.Context, f Filter) ([]Group, error) {
	services, err := c.chosen(ctx, f.Service)
	if err != nil {
		return nil, err
	}
	return gather(ctx, services, func(ctx context.Context, s *Service) ([]Group, error) {
		var list struct {
			Items []struct {
				Group
				Example int64 `json:"example"`
			}
		}
		err := s.get(ctx, "/admin/waiting/summary", f.query(), &list)
		var groups []Group
		for _, g := range list.Items {
			g.Group.Service, g.Group.Example = s.Name, ID{s.Name, g.Example}
			groups = append(groups, g.Group)
		}
		return groups, err
	})
}

// maxPage is how many waiting events a service lists at once.
const maxPage = 1000

// List lists waiting events, of each service at most limit with IDs above after. more says of
// which services there are more.
func (c *Console) List(ctx context.Context, f Filter, after ID, limit int) (all []Waiting, more []string, err error) {
	services, err := c.chosen(ctx, f.Service)
	if err != nil {
		return nil, nil, err
	}
	type page struct {
		items []Waiting
		more  string
	}
	pages, err := gather(ctx, services, func(ctx context.Context, s *Service) ([]page, error) {
		from := int64(0)
		switch {
		case s.Name < after.Service: // services come in the order of their names
			return nil, nil
		case s.Name == after.Service:
			from = after.N
		}
		items, next, err := s.list(ctx, f, from, limit)
		p := page{items: items}
		if next {
			p.more = s.Name
		}
		return []page{p}, err
	})
	for _, p := range pages {
		all = append(all, p.items...)
		if p.more != "" {
			more = append(more, p.more)
		}
	}
	return all, more, err
}

func (s *Service) list(ctx context.Context, f Filter, after int64, limit int) (all []Waiting, more bool, err error) {
	for more = true; more && len(all) < limit; {
		q := f.query()
		q.Set("limit", strconv.Itoa(min(limit-len(all), maxPage)))
		q.Set("after", strconv.FormatInt(after, 10))
		var page struct {
			Items []answered
			Next  string
		}
		if err := s.get(ctx, "/admin/waiting", q, &page); err != nil {
			return all, false, err
		}
		for _, a := range page.Items {
			all = append(all, a.of(s))
			after = a.ID
		}
		more = page.Next != ""
	}
	return all, more, nil
}

// Show shows a waiting event whole. Personal data are masked unless unmask, which the service
// logs.
func (c *Console) Show(ctx context.Context, id ID, unmask bool) (Waiting, error) {
	s, err := c.service(ctx, id.Service)
	if err != nil {
		return Waiting{}, err
	}
	q := url.Values{}
	if unmask {
		q.Set("unmask", "true")
	}
	var a answered
	if err := s.get(ctx, "/admin/waiting/"+strconv.FormatInt(id.N, 10), q, &a); err != nil {
		return Waiting{}, about(err, id)
	}
	return a.of(s), nil
}

// queueShown is how much of a key's queue is shown with one of its events.
const queueShown = 20

// Queue is what waits of the event's key in its service, in order; more if that is not all.
func (c *Console) Queue(ctx context.Context, w *Waiting) (all []Waiting, more bool, err error) {
	s, err := c.service(ctx, w.ID.Service)
	if err != nil || w.Key == "" {
		return nil, false, err
	}
	all, more, err = s.list(ctx, Filter{Topic: w.Topic, Key: w.Key}, 0, queueShown)
	return all, more, explain(err)
}

// Redrive gives a waiting event its attempts back and lets it run now, in its place. After
// ten times only with force. It returns the event's ID from then on.
func (c *Console) Redrive(ctx context.Context, id ID, force bool) (now ID, err error) {
	s, err := c.service(ctx, id.Service)
	if err != nil {
		return id, err
	}
	answer := struct {
		NewID int64 `json:"new_id"`
	}{id.N}
	err = s.post(ctx, "/admin/waiting/"+strconv.FormatInt(id.N, 10)+"/redrive", map[string]bool{"force": force}, &answer)
	return ID{s.Name, answer.NewID}, about(err, id)
}

// about says what to do about a refusal that concerns one event.
func about(err error, id ID) error {
	switch {
	case err == nil:
		return nil
	case refused(err, http.StatusNotFound):
		f := none("%s: it does not wait; it may be done by now", id).then("console waiting ls --each --service %s", id.Service)
		f.of = id.String()
		return f
	case refused(err, http.StatusConflict):
		var p *Problem
		errors.As(err, &p)
		why, behind := inOurWords(p.text(), id.Service)
		f := fail("%s was refused: %s", id, safe(why, 500)).then("console waiting show %s", id)
		switch {
		case behind != nil:
			f.then("console waiting show %s", behind)
		case strings.Contains(why, "--force"):
			f.then("if the cause is mended: console redrive %s --force --yes", id)
		}
		return f
	}
	return explain(err)
}
