package inbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// The states of waiting events that are not those of their key.
const (
	behind   state = "behind"    // another event of the key comes first
	setAside state = "set aside" // a dead letter that holds nothing up
)

const (
	listLimit   = 100
	maxList     = 1000
	maxRedrives = 10
)

// Waiting is a waiting event as the operator sees it.
type Waiting struct {
	ID            int64             `json:"id"`
	Group         string            `json:"group"`
	Topic         string            `json:"topic"`
	Partition     int32             `json:"partition"`
	Offset        int64             `json:"offset"`
	Key           string            `json:"key"` // quoted as in Go if it is no UTF-8
	Type          string            `json:"type"`
	EventID       string            `json:"event_id"`
	TraceID       string            `json:"trace_id,omitempty"`
	State         string            `json:"state"` // retrying, running, unavailable, dead, behind, set aside
	Reason        string            `json:"reason,omitempty"`
	Error         string            `json:"error,omitempty"`
	Attempts      int               `json:"attempts"`
	Redrives      int               `json:"redrives"`
	TakenAt       time.Time         `json:"taken_at"`
	FirstFailedAt *time.Time        `json:"first_failed_at,omitempty"`
	FailedAt      *time.Time        `json:"failed_at,omitempty"`
	Due           *time.Time        `json:"due,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
	Event         json.RawMessage   `json:"event,omitempty"` // decoded; personal data masked
	Undecoded     string            `json:"undecoded,omitempty"`
	Size          int               `json:"value_bytes,omitempty"`
	Value         []byte            `json:"value,omitempty"`       // if it cannot be decoded, and is to be shown
	NeedsForce    bool              `json:"needs_force,omitempty"` // it was redriven so often that another time wants force
	Held          string            `json:"held,omitempty"`        // why events of the type that it waits for are not tried now
	NewID         int64             `json:"new_id,omitempty"`      // once redriven: one that was set aside gets another
}

// Routes are the operator's: what waits, why, since when, and the means to redrive or drop
// it. They authenticate nobody, so serve them where only operators reach.
func (in *Inbox) Routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/waiting", in.serveList)
	mux.HandleFunc("GET /admin/waiting/summary", in.serveSummary)
	mux.HandleFunc("GET /admin/waiting/{id}", in.serveShow)
	mux.HandleFunc("POST /admin/waiting/{id}/redrive", in.serveRedrive)
	mux.HandleFunc("POST /admin/waiting/{id}/drop", in.serveDrop)
	mux.HandleFunc("POST /admin/waiting/redrive", in.serveRedriveAll)
	return mux
}

// filter selects waiting events; an empty field selects all.
type filter struct {
	State  string `json:"state"`
	Topic  string `json:"topic"`
	Key    string `json:"key"`
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Error  string `json:"error"` // a part of its text
}

func queryFilter(q url.Values) filter {
	return filter{State: q.Get("state"), Topic: q.Get("topic"), Key: q.Get("key"), Type: q.Get("type"), Reason: q.Get("reason"), Error: q.Get("error")}
}

// conditions are the filter's, of waiting events e and their keys k, with their arguments.
func (in *Inbox) conditions(f filter) (where string, args []any, err error) {
	for _, text := range []string{f.State, f.Topic, f.Type, f.Reason, f.Error} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return "", nil, refusal{http.StatusBadRequest, "state, topic, type, reason and error must be plain text"}
		}
	}
	// An error is pasted as it was shown: on one line, with … for what was left out.
	part := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `…`, `%`).Replace(strings.ToLower(f.Error)) + "%"
	return `e.group_name = $1 and ($2 = '' or ` + stateOf + ` = $2) and ($3 = '' or e.topic = $3) and ($4 or e.key = $5)
			and ($6 = '' or e.type = $6) and ($7 = '' or e.reason = $7) and ($8 or lower(` + oneLine + `) like $9 escape '\')`,
		[]any{in.cfg.Group, f.State, f.Topic, f.Key == "", event.ParseKey(f.Key), f.Type, f.Reason, f.Error == "", part}, nil
}

const oneLine = "replace(replace(e.error, '\n', ' '), '\t', ' ')"

const stateOf = `case when e.set_aside then 'set aside'
	when e.seq > (select min(h.seq) from waiting_event h where h.group_name = e.group_name and h.topic = e.topic and h.key = e.key and not h.set_aside) then 'behind'
	else k.state end`

type found struct {
	item
	place
	due  int64
	held string // why it is not tried now, if its type is held
}

// find lists waiting events with IDs above after, and their values only if they are to be
// shown whole.
func (in *Inbox) find(ctx context.Context, f filter, after int64, limit int, whole bool) ([]found, error) {
	where, args, err := in.conditions(f)
	if err != nil {
		return nil, err
	}
	value := `null`
	if whole {
		value = `value`
	}
	held, err := in.held(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := in.db.Query(ctx, `select `+stateOf+`, coalesce(k.state, ''), coalesce(k.type, ''), coalesce(k.due, 0), e.seq, e.topic, e.key, has_key, topic_id, part, position, identity, recorded_at, headers, `+value+`, value is null,
			e.type, set_aside, attempts, redrives, reason, error, first_failed_at, failed_at, taken_at
		from waiting_event e left join waiting_key k on k.group_name = e.group_name and k.topic = e.topic and k.key = e.key
		where `+where+` and e.seq > $10 order by e.seq`+fmt.Sprintf(` limit %d`, limit), append(args, after)...)
	return db.Collect(rows, err, func(r *sql.Rows, one *found) error {
		err := scanItem(scanner(func(dest ...any) error {
			return r.Scan(append([]any{&one.state, &one.keyState, &one.keyType, &one.due}, dest...)...)
		}), &one.item)
		one.held = held[one.waitsFor(one.meta.Type)]
		return err
	})
}

type scanner func(dest ...any) error

func (s scanner) Scan(dest ...any) error { return s(dest...) }

func (in *Inbox) serveList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := number(q.Get("limit"), listLimit)
	if err != nil || limit < 1 || limit > maxList {
		problem(w, http.StatusBadRequest, fmt.Sprintf("limit must be a number from 1 to %d", maxList))
		return
	}
	after, err := number(q.Get("after"), 0)
	if err != nil {
		problem(w, http.StatusBadRequest, "after must be the id of a waiting event")
		return
	}
	all, err := in.find(r.Context(), queryFilter(q), int64(after), limit, false)
	if err != nil {
		in.problem(w, r, err)
		return
	}
	page := struct {
		Items []Waiting `json:"items"`
		Next  string    `json:"next,omitempty"`
	}{Items: []Waiting{}}
	for i := range all {
		page.Items = append(page.Items, in.view(&all[i]))
	}
	if len(all) == limit {
		page.Next = strconv.FormatInt(all[len(all)-1].seq, 10)
	}
	writeJSON(w, http.StatusOK, page)
}

func (in *Inbox) serveShow(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		problem(w, http.StatusBadRequest, "id must be a number")
		return
	}
	one, err := in.find(r.Context(), filter{}, id-1, 1, true)
	switch {
	case err != nil:
		in.problem(w, r, err)
	case len(one) == 0 || one[0].seq != id:
		problem(w, http.StatusNotFound, "no such waiting event; it may be done by now")
	default:
		unmask := r.URL.Query().Get("unmask") == "true"
		if unmask {
			in.cfg.Log.WarnContext(r.Context(), "a waiting event is shown with its personal data", "id", id, "event_id", one[0].meta.ID)
		}
		writeJSON(w, http.StatusOK, in.whole(r.Context(), &one[0], !unmask))
	}
}

// view shows a waiting event without its payload.
func (in *Inbox) view(f *found) Waiting {
	it := &f.item
	meta := event.ReadMeta(it.Record, it.meta.Type)
	v := Waiting{
		ID: it.seq, Group: in.cfg.Group, Topic: it.Topic, Partition: it.Partition, Offset: it.Offset, Key: event.KeyText(it.Key), Type: it.meta.Type,
		EventID: meta.ID, State: f.state, Reason: it.reason, Error: it.lastError, Attempts: it.attempts, Redrives: it.redrives,
		NeedsForce: it.redrives >= maxRedrives, Held: f.held, TakenAt: db.Time(it.takenAt), FirstFailedAt: moment(it.firstFailedAt), FailedAt: moment(it.failedAt),
	}
	if sc := event.SpanContext(it.Headers); sc.IsValid() {
		v.TraceID = sc.TraceID().String()
	}
	if f.state == string(retrying) || f.state == string(running) {
		v.Due = moment(f.due)
	}
	return v
}

// whole shows a waiting event with its headers and its payload, personal data masked or not.
func (in *Inbox) whole(ctx context.Context, f *found, mask bool) Waiting {
	it, v := &f.item, in.view(f)
	v.Headers, v.Size = map[string]string{}, len(it.Value)
	for _, h := range it.Headers {
		v.Headers[h.Key] = string(h.Value)
	}
	decoded, err := in.codec.JSON(ctx, it.Value, mask)
	switch {
	case err == nil:
		v.Event = decoded
	case !mask: // whatever its bytes are, they may be personal
		v.Value = it.Value
		fallthrough
	default:
		v.Undecoded = err.Error()
	}
	return v
}

func (in *Inbox) serveRedrive(w http.ResponseWriter, r *http.Request) {
	in.act(w, r, func(ctx context.Context, tx *db.Tx, id int64, req request) (int64, error) {
		return in.redrive(ctx, tx, id, req.Force)
	})
}

func (in *Inbox) serveDrop(w http.ResponseWriter, r *http.Request) {
	in.act(w, r, func(ctx context.Context, tx *db.Tx, id int64, req request) (int64, error) {
		if req.Reason == "" {
			return 0, refusal{http.StatusBadRequest, `say why: {"reason": "…"}`}
		}
		return id, in.drop(ctx, tx, id, req.Reason)
	})
}

// request is the body of the operator's requests.
type request struct {
	Filter filter `json:"filter"`
	DryRun *bool  `json:"dry_run"` // true if absent
	Limit  int    `json:"limit"`
	After  int64  `json:"after"` // IDs above it only
	Until  int64  `json:"until"` // IDs up to it only, all if 0
	Force  bool   `json:"force"`
	Reason string `json:"reason"`
}

func (in *Inbox) act(w http.ResponseWriter, r *http.Request, do func(context.Context, *db.Tx, int64, request) (now int64, err error)) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		problem(w, http.StatusBadRequest, "id must be a number")
		return
	}
	req, err := readRequest(w, r)
	now := id
	if err == nil {
		err = in.db.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) (err error) {
			now, err = do(ctx, tx, id, req)
			return err
		})
	}
	if err != nil {
		in.problem(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"id": id, "new_id": now, "done": true})
}

func readRequest(w http.ResponseWriter, r *http.Request) (req request, err error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil && r.ContentLength != 0 {
		return req, refusal{http.StatusBadRequest, err.Error()}
	}
	return req, nil
}

func number(text string, absent int) (int, error) {
	if text == "" {
		return absent, nil
	}
	return strconv.Atoi(text)
}

func moment(micros int64) *time.Time {
	if micros == 0 {
		return nil
	}
	t := db.Time(micros)
	return &t
}

// refusal is an operator's request that cannot be done.
type refusal struct {
	status int
	detail string
}

func (r refusal) Error() string { return r.detail }

func (in *Inbox) problem(w http.ResponseWriter, r *http.Request, err error) {
	var refused refusal
	if errors.As(err, &refused) {
		problem(w, refused.status, refused.detail)
		return
	}
	in.cfg.Log.ErrorContext(r.Context(), "operator's request failed", "path", r.URL.Path, "error", err)
	problem(w, http.StatusServiceUnavailable, "the database did not answer; try again")
}

// problem answers as RFC 9457 says.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client may be gone
}
