package console

import (
	"context"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// Replay asks for events that a service's group has had before to run again.
type Replay struct {
	Service string
	Topic   string
	From    map[int32]int64 // offsets by partition; nil: FromTime
	Since   time.Time
	Until   time.Time // zero: the end of the topic as it is now
	Key     string
	Type    string
	DryRun  bool
	// Progress, if set, hears of every step.
	Progress func(Replayed)
}

// Replayed says what a replay has come to.
type Replayed struct {
	DryRun  bool              `json:"dry_run"`
	Service string            `json:"service"`
	Topic   string            `json:"topic"`
	Scanned int               `json:"scanned"`
	Matched map[string]int    `json:"matched"`           // by type
	Refused map[string]string `json:"refused,omitempty"` // why those of a type cannot be replayed
	Queued  int               `json:"queued"`
	Next    map[string]int64  `json:"next"` // by partition: where it goes on
	Done    bool              `json:"done"`
	// Unreadable are offsets that cannot be read, and are left out.
	Unreadable []Gap `json:"unreadable,omitempty"`
}

// Gap are offsets of a partition that cannot be read: from one up to another, where reading
// goes on.
type Gap struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Error     string `json:"error"`
}

// replayStep is how many records a service reads in one request.
const replayStep = 2000

// Replay puts events of a topic into the queue of a service's group again, in order, or with
// DryRun tells what it would do. Events of types whose handlers are not declared repeatable
// are refused. After an error Next is where another one goes on.
func (c *Console) Replay(ctx context.Context, r Replay) (Replayed, error) {
	total := Replayed{DryRun: r.DryRun, Service: r.Service, Topic: r.Topic, Matched: map[string]int{}, Refused: map[string]string{}}
	s, err := c.service(ctx, r.Service)
	if err != nil {
		return total, err
	}
	body := map[string]any{"topic": r.Topic, "key": r.Key, "type": r.Type, "limit": replayStep, "dry_run": r.DryRun}
	if r.From != nil {
		from := map[string]int64{}
		for id, at := range r.From {
			from[strconv.Itoa(int(id))] = at
		}
		body["from"], total.Next = from, from
	} else {
		body["from_time"] = r.Since.UTC()
	}
	if !r.Until.IsZero() {
		body["until_time"] = r.Until.UTC()
	}
	for !total.Done {
		if err := s.replay(ctx, body, &total); err != nil {
			return total, explain(err)
		}
		if r.Progress != nil {
			r.Progress(total)
		}
	}
	return total, nil
}

func (s *Service) replay(ctx context.Context, body map[string]any, total *Replayed) error {
	var part struct {
		Replayed
		Until map[string]int64 `json:"until"`
	}
	err := s.post(ctx, "/admin/replay", body, &part)
	switch {
	case refused(err, http.StatusNotFound):
		return missing(body["topic"].(string))
	case refused(err, http.StatusBadRequest):
		return wrong("%v", err)
	case err != nil:
		return err
	}
	total.Scanned += part.Scanned
	total.Queued += part.Queued
	for typ, n := range part.Matched {
		total.Matched[typ] += n
	}
	maps.Copy(total.Refused, part.Refused)
	total.Unreadable = append(total.Unreadable, part.Unreadable...)
	total.Next, total.Done = part.Next, part.Done
	// The end that the first answer found is the end of all.
	delete(body, "from_time")
	body["from"], body["until"] = part.Next, part.Until
	return nil
}
