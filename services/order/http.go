package order

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
)

const (
	maxBody = 256 << 10
	maxPage = 100
	page    = 20
	maxWait = 30 * time.Second
)

// routes are the public routes by their patterns; openapi.yaml tells the same.
func (s *Service) routes(intake *intake) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST /v1/orders":             func(w http.ResponseWriter, r *http.Request) { s.servePlace(w, r, intake) },
		"GET /v1/orders":              s.serveList,
		"GET /v1/orders/{id}":         s.serveGet,
		"POST /v1/orders/{id}/cancel": s.serveCancel,
	}
}

func (s *Service) mux(intake *intake) *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, serve := range s.routes(intake) {
		mux.HandleFunc(pattern, serve)
	}
	return mux
}

// intake takes orders, many in one transaction when many come.
type intake = idempotency.Batch[*placing]

func (s *Service) servePlace(w http.ResponseWriter, r *http.Request, in *intake) {
	key, err := idempotency.ParseKey(r.Header.Get("Idempotency-Key"))
	if err != nil {
		s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "Idempotency-Key", Detail: err.Error()})
		return
	}
	var d Draft
	if err := service.DecodeJSON(w, r, maxBody, &d); err != nil {
		s.fail(w, r, err)
		return
	}
	fingerprint := sha256.Sum256([]byte(text(d)))
	var answer idempotency.Answer
	p, refused := s.accept(r.Context(), d, key)
	if refused == nil {
		answer = idempotency.Answer{Status: http.StatusAccepted, Location: "/v1/orders/" + p.order.ID, Body: accepted(r.Context(), p.order)}
	}
	answer, replayed, err := in.Do(r.Context(), "POST /v1/orders "+key, fingerprint[:], p, answer, refused)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answer.Write(w, replayed)
}

// accept makes an order of a request, unless there are too many. A repeated request gets its
// answer all the same.
func (s *Service) accept(ctx context.Context, d Draft, key string) (*placing, error) {
	if reason := s.pressure.Load(); reason != nil {
		return nil, &service.Problem{Status: http.StatusServiceUnavailable, Detail: "overloaded: " + *reason}
	}
	return newOrder(ctx, d, key)
}

// accepted is the body of a 202.
func accepted(ctx context.Context, o *Order) []byte {
	return append([]byte(text(struct {
		OrderID string `json:"order_id"`
		Status  Status `json:"status"`
		TraceID string `json:"trace_id"`
	}{o.ID, o.Status, trace.SpanContextFromContext(ctx).TraceID().String()})), '\n')
}

// orderView is an order as clients see it.
type orderView struct {
	OrderID       string    `json:"order_id"`
	CustomerID    string    `json:"customer_id"`
	CustomerEmail string    `json:"customer_email"`
	Status        Status    `json:"status"`
	Reason        string    `json:"reason,omitempty"`
	Lines         []Line    `json:"lines"`
	TotalCents    int64     `json:"total_cents"`
	Currency      string    `json:"currency"`
	PlacedAt      time.Time `json:"placed_at"`
	History       []Step    `json:"history"`
	TraceID       string    `json:"trace_id,omitempty"` // of the request that placed it
}

func view(o *Order) orderView {
	v := orderView{
		OrderID: o.ID, CustomerID: o.CustomerID, CustomerEmail: o.CustomerEmail, Status: o.Status, Reason: o.Reason, Lines: o.Lines,
		TotalCents: o.TotalCents, Currency: o.Currency, PlacedAt: o.PlacedAt, History: o.History,
	}
	if len(o.Traceparent) > 35 {
		v.TraceID = o.Traceparent[3:35]
	}
	return v
}

func (s *Service) serveGet(w http.ResponseWriter, r *http.Request) {
	id, err := parseID("id", r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var patience time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		if patience, err = time.ParseDuration(text); err != nil || patience < 0 || patience > maxWait {
			s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "wait", Detail: "must be a duration up to " + maxWait.String()})
			return
		}
	}
	o, err := s.Wait(r.Context(), id, patience)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	service.WriteJSON(w, http.StatusOK, view(o))
}

func (s *Service) serveList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit := page
	if text := q.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "limit", Detail: "must be a number from 1 to " + strconv.Itoa(maxPage)})
			return
		}
	}
	after := q.Get("after")
	if after != "" {
		var err error
		if after, err = parseID("after", after); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if customer := q.Get("customer_id"); customer != "" {
		if err := checkText("customer_id", customer); err != nil {
			s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "customer_id", Detail: "must be a customer's ID"})
			return
		}
	}
	orders, err := list(r.Context(), s.db, q.Get("customer_id"), after, limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	body := struct {
		Items []orderView `json:"items"`
		Next  string      `json:"next,omitempty"`
	}{Items: []orderView{}}
	for i := range orders {
		body.Items = append(body.Items, view(&orders[i]))
	}
	if len(orders) == limit {
		body.Next = orders[limit-1].ID
	}
	service.WriteJSON(w, http.StatusOK, body)
}

func (s *Service) serveCancel(w http.ResponseWriter, r *http.Request) {
	id, err := parseID("id", r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := s.Cancel(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Location", "/v1/orders/"+o.ID)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(accepted(r.Context(), o))
}

// parseID reads an order's ID in its one spelling, but for capitals.
func parseID(field, text string) (string, error) {
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(id.String()) {
		return "", &service.Problem{Status: http.StatusBadRequest, Field: field, Detail: "must be an order's ID, a UUID"}
	}
	return id.String(), nil
}

// problem is the one table from errors to answers.
func problem(err error) error {
	status, field := 0, ""
	var broken *FieldError
	switch {
	case errors.As(err, &broken):
		return &service.Problem{Status: http.StatusUnprocessableEntity, Field: broken.Field, Detail: broken.Rule}
	case errors.Is(err, idempotency.ErrMismatch):
		status, field = http.StatusUnprocessableEntity, "Idempotency-Key"
	case errors.Is(err, idempotency.ErrInFlight):
		status, field = http.StatusConflict, "Idempotency-Key"
	case errors.Is(err, outbox.ErrTooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrRejected):
		status = http.StatusConflict
	default:
		return err
	}
	return &service.Problem{Status: status, Field: field, Detail: err.Error()}
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	service.WriteError(w, r, s.log, problem(err))
}
