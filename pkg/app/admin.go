package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
)

// desk are the operator's routes that need more than the inbox.
type desk struct {
	app      *App
	consumer *kafka.Consumer
}

func (a *App) operatorRoutes(consumer *kafka.Consumer) http.Handler {
	d := &desk{a, consumer}
	mux := http.NewServeMux()
	mux.Handle("/admin/", a.Inbox.Routes())
	mux.HandleFunc("GET /admin/outbox", d.outbox)
	mux.HandleFunc("GET /admin/partitions", d.partitions)
	mux.HandleFunc("POST /admin/partitions/skip", d.skip)
	mux.HandleFunc("POST /admin/replay", d.replay)
	return a.addressed(mux)
}

// addressed refuses what was meant for another service, so that a mistaken address does not
// redrive or drop the event that has the same number here.
func (a *App) addressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meant := r.Header.Get("Service-Name"); meant != "" && meant != a.name {
			service.WriteProblem(w, r, http.StatusMisdirectedRequest, "this is the service "+a.name, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d *desk) outbox(w http.ResponseWriter, r *http.Request) {
	all, _, err := d.app.Outbox.Stats(r.Context())
	var held []outbox.Held
	if err == nil {
		held, err = d.app.Outbox.Held(r.Context())
	}
	if err != nil {
		d.fail(w, r, err, "the database did not answer; try again")
		return
	}
	type hold struct {
		Topic string    `json:"topic"`
		Key   string    `json:"key,omitempty"`
		Error string    `json:"error"`
		Since time.Time `json:"since"`
	}
	holds := []hold{}
	for _, h := range held {
		holds = append(holds, hold{h.Topic, event.KeyText(h.Key), h.Error, h.Since})
	}
	service.WriteJSON(w, http.StatusOK, map[string]any{"pending": all.Events, "oldest_age_seconds": all.Oldest.Seconds(), "held": holds})
}

func (d *desk) partitions(w http.ResponseWriter, r *http.Request) {
	all := d.consumer.Partitions(r.Context())
	if all == nil {
		all = []kafka.Partition{}
	}
	service.WriteJSON(w, http.StatusOK, map[string]any{"group": d.app.cfg.Kafka.Group, "items": all})
}

// maxRequest bounds the body of an operator's request, in bytes.
const maxRequest = 64 << 10

func (d *desk) skip(w http.ResponseWriter, r *http.Request) {
	req := struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		From      int64  `json:"from"`
		To        int64  `json:"to"`
		DryRun    *bool  `json:"dry_run"` // true if absent
	}{}
	if err := service.DecodeJSON(w, r, maxRequest, &req); err != nil {
		refuse(w, r, err)
		return
	}
	dry := req.DryRun == nil || *req.DryRun
	if !dry {
		err := d.consumer.Skip(r.Context(), req.Topic, req.Partition, req.From, req.To)
		switch {
		case errors.Is(err, kafka.ErrNotSkipped):
			service.WriteProblem(w, r, http.StatusConflict, err.Error(), "")
			return
		case err != nil:
			d.fail(w, r, err, "the brokers did not take it; look again with GET /admin/partitions")
			return
		}
	}
	service.WriteJSON(w, http.StatusOK, map[string]any{"dry_run": dry, "from": req.From, "to": req.To})
}

// replayRequest asks for a part of a topic, and is answered with the next part of it.
type replayRequest struct {
	Topic     string           `json:"topic"`
	From      map[string]int64 `json:"from"` // offsets by partition; from_time if absent
	FromTime  *time.Time       `json:"from_time"`
	Until     map[string]int64 `json:"until"` // until_time if absent, and the end now if that is, too
	UntilTime *time.Time       `json:"until_time"`
	Key       string           `json:"key"`
	Type      string           `json:"type"`
	Limit     int              `json:"limit"` // how many records one request reads
	DryRun    *bool            `json:"dry_run"`
}

const (
	replayLimit = 1000
	maxReplay   = 10_000
	replayTime  = 20 * time.Second // below the server's own bound of an answer
)

func (d *desk) replay(w http.ResponseWriter, r *http.Request) {
	req := replayRequest{}
	if err := service.DecodeJSON(w, r, maxRequest, &req); err != nil {
		refuse(w, r, err)
		return
	}
	if req.Limit < 1 || req.Limit > maxReplay {
		req.Limit = replayLimit
	}
	ctx, cancel := context.WithTimeout(r.Context(), replayTime)
	defer cancel()
	part, err := d.read(ctx, &req)
	var wrong *service.Problem
	switch {
	case errors.As(err, &wrong):
		refuse(w, r, err)
		return
	case errors.Is(err, kafka.ErrNoTopic):
		service.WriteProblem(w, r, http.StatusNotFound, err.Error(), "topic")
		return
	case err != nil:
		d.fail(w, r, err, "the records could not be read: "+err.Error())
		return
	}
	dry := req.DryRun == nil || *req.DryRun
	total := inbox.Replayed{Matched: map[string]int{}, Refused: map[string]string{}}
	for _, b := range part.batches {
		done, err := d.app.Inbox.Replay(ctx, *b, req.Type, dry)
		total.Queued += done.Queued
		if err != nil {
			d.fail(w, r, err, "replayed in part, "+strconv.Itoa(total.Queued)+" events are queued; the database or the registry did not answer")
			return
		}
		for typ, n := range done.Matched {
			total.Matched[typ] += n
		}
		maps.Copy(total.Refused, done.Refused)
	}
	if !dry && total.Queued > 0 {
		d.app.Log.WarnContext(ctx, "events replayed by an operator", "topic", req.Topic, "from", req.From, "queued", total.Queued)
	}
	service.WriteJSON(w, http.StatusOK, map[string]any{
		"dry_run": dry, "scanned": part.scanned, "matched": total.Matched, "queued": total.Queued, "refused": total.Refused,
		"next": part.next, "until": part.until, "done": part.done, "unreadable": part.unreadable,
	})
}

// part is what one request reads of a topic.
type part struct {
	batches     map[int32]*event.Batch
	next, until map[string]int64
	scanned     int
	done        bool
	unreadable  []gap
}

// gap are offsets that cannot be read, and that a replay leaves out.
type gap struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"` // it goes on there
	Error     string `json:"error"`
}

func (d *desk) read(ctx context.Context, req *replayRequest) (*part, error) {
	reader, err := kafka.NewReader(ctx, d.app.cfg.Kafka)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	from, err := d.positions(ctx, req, req.From, req.FromTime, reader, nil)
	if err != nil {
		return nil, err
	}
	until, err := d.positions(ctx, req, req.Until, req.UntilTime, reader, reader.Ends)
	if err != nil {
		return nil, err
	}
	for id := range from[req.Topic] {
		if _, there := until[req.Topic][id]; !there { // it would be waited for
			return nil, &service.Problem{Status: http.StatusBadRequest, Field: "from",
				Detail: fmt.Sprintf("%s has no partition %d: they are 0 to %d", req.Topic, id, len(until[req.Topic])-1)}
		}
	}
	p := &part{batches: map[int32]*event.Batch{}, unreadable: []gap{}, next: text(from[req.Topic]), until: text(until[req.Topic])}
	for record, err := range reader.Records(ctx, from, until) {
		if left, ok := errors.AsType[*kafka.PartitionError](err); ok && left.To >= 0 {
			p.unreadable = append(p.unreadable, gap{left.Partition, left.From, left.To, left.Err.Error()})
			p.next[strconv.Itoa(int(left.Partition))] = left.To
			continue
		}
		if err != nil {
			return nil, err
		}
		p.scanned++
		p.next[strconv.Itoa(int(record.Partition))] = record.Offset + 1
		if req.Key == "" || string(event.ParseKey(req.Key)) == string(record.Key) {
			b := p.batches[record.Partition]
			if b == nil {
				b = &event.Batch{Topic: record.Topic, TopicID: record.TopicID, Partition: record.Partition}
				p.batches[record.Partition] = b
			}
			b.Records = append(b.Records, record)
		}
		if p.scanned == req.Limit {
			return p, nil
		}
	}
	p.done = true
	return p, nil
}

// positions are what a request says: offsets, or a time, or what it is without either.
func (d *desk) positions(ctx context.Context, req *replayRequest, offsets map[string]int64, at *time.Time, reader *kafka.Reader,
	absent func(context.Context, ...string) (kafka.Positions, error)) (kafka.Positions, error) {
	switch {
	case offsets != nil:
		byID := map[int32]int64{}
		for id, offset := range offsets {
			n, err := strconv.ParseInt(id, 10, 32)
			if err != nil {
				return nil, &service.Problem{Status: http.StatusBadRequest, Field: "from", Detail: "must have partitions' numbers as names"}
			}
			byID[int32(n)] = offset
		}
		return kafka.Positions{req.Topic: byID}, nil
	case at != nil:
		return reader.Since(ctx, *at, req.Topic)
	case absent != nil:
		return absent(ctx, req.Topic)
	}
	return nil, &service.Problem{Status: http.StatusBadRequest, Field: "from", Detail: "say where to begin: from or from_time"}
}

func text(offsets map[int32]int64) map[string]int64 {
	all := map[string]int64{}
	for id, offset := range offsets {
		all[strconv.Itoa(int(id))] = offset
	}
	return all
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	wrong := &service.Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	_ = errors.As(err, &wrong)
	service.WriteProblem(w, r, wrong.Status, wrong.Detail, wrong.Field)
}

func (d *desk) fail(w http.ResponseWriter, r *http.Request, err error, detail string) {
	d.app.Log.ErrorContext(r.Context(), "operator's request failed", "path", r.URL.Path, "error", err)
	service.WriteProblem(w, r, http.StatusServiceUnavailable, detail, "")
}
