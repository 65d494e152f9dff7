package inventory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/service"
)

const (
	maxBody = 4 << 10
	page    = 100
	maxPage = 1000
)

// routes are the public routes by their patterns; openapi.yaml tells the same.
func (s *Service) routes(keys *idempotency.Keys) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/stock/{sku}":           s.serveStock,
		"GET /v1/stock/{sku}/movements": s.serveMovements,
		"POST /v1/stock/{sku}/receipts": func(w http.ResponseWriter, r *http.Request) { s.serveReceipt(w, r, keys) },
	}
}

func (s *Service) mux(keys *idempotency.Keys) *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, serve := range s.routes(keys) {
		mux.HandleFunc(pattern, serve)
	}
	return mux
}

// stockView is an article's stock as clients see it.
type stockView struct {
	SKU       string     `json:"sku"`
	OnHand    int64      `json:"on_hand"`
	Reserved  int64      `json:"reserved"`
	Available int64      `json:"available"`
	Version   int64      `json:"version"`
	At        *time.Time `json:"at,omitempty"`
}

func view(s *Stock, at *time.Time) stockView {
	return stockView{s.SKU, s.OnHand, s.Reserved, s.Available(), s.Version, at}
}

func (s *Service) serveStock(w http.ResponseWriter, r *http.Request) {
	sku, err := skuOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	text := r.URL.Query().Get("at")
	if text == "" {
		stock, err := current(r.Context(), s.db, sku)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		service.WriteJSON(w, http.StatusOK, view(stock, nil))
		return
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "at", Detail: "must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z"})
		return
	}
	stock, err := asOf(r.Context(), s.db, sku, at)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	at = at.UTC()
	service.WriteJSON(w, http.StatusOK, view(stock, &at))
}

func (s *Service) serveMovements(w http.ResponseWriter, r *http.Request) {
	sku, err := skuOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	limit, err := number(r, "limit", page, 1, maxPage)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, err := number(r, "after", 0, 0, maxOnHand)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	moved, err := movements(r.Context(), s.db, sku, after, int(limit))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	body := struct {
		Items []Movement `json:"items"`
		Next  string     `json:"next,omitempty"`
	}{Items: append([]Movement{}, moved...)}
	if len(moved) == int(limit) {
		body.Next = strconv.FormatInt(moved[limit-1].Version, 10)
	}
	service.WriteJSON(w, http.StatusOK, body)
}

func (s *Service) serveReceipt(w http.ResponseWriter, r *http.Request, keys *idempotency.Keys) {
	sku, err := skuOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	key, err := idempotency.ParseKey(r.Header.Get("Idempotency-Key"))
	if err != nil {
		s.fail(w, r, &service.Problem{Status: http.StatusBadRequest, Field: "Idempotency-Key", Detail: err.Error()})
		return
	}
	var receipt struct {
		Quantity int64 `json:"quantity"`
	}
	if err := service.DecodeJSON(w, r, maxBody, &receipt); err != nil {
		s.fail(w, r, err)
		return
	}
	if receipt.Quantity < 1 || receipt.Quantity > MaxQuantity {
		s.fail(w, r, &service.Problem{Status: http.StatusUnprocessableEntity, Field: "quantity", Detail: fmt.Sprintf("must be 1 to %d", MaxQuantity)})
		return
	}
	fingerprint := fmt.Appendf(nil, "%s %d", sku, receipt.Quantity)
	answer, replayed, err := keys.Do(r.Context(), "POST /v1/stock/receipts "+key, fingerprint, func(ctx context.Context, tx *db.Tx) (idempotency.Answer, error) {
		stock, err := s.Receive(ctx, tx, sku, receipt.Quantity, "receipt "+key)
		if err != nil {
			return idempotency.Answer{}, err
		}
		body, err := plainJSON(view(stock, nil))
		return idempotency.Answer{Status: http.StatusCreated, Body: body}, err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answer.Write(w, replayed)
}

// plainJSON is v as [service.WriteJSON] writes it: & and < in a SKU stay as they are.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

func skuOf(r *http.Request) (string, error) {
	sku := r.PathValue("sku")
	if err := checkText(sku); err != nil {
		return "", &service.Problem{Status: http.StatusBadRequest, Field: "sku", Detail: err.Error()}
	}
	return sku, nil
}

func number(r *http.Request, name string, absent, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, &service.Problem{Status: http.StatusBadRequest, Field: name, Detail: fmt.Sprintf("must be a number from %d to %d", least, most)}
	}
	return n, nil
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		err = &service.Problem{Status: http.StatusNotFound, Detail: err.Error()}
	case errors.Is(err, ErrTooMuch):
		err = &service.Problem{Status: http.StatusUnprocessableEntity, Field: "quantity", Detail: err.Error()}
	case errors.Is(err, idempotency.ErrMismatch):
		err = &service.Problem{Status: http.StatusUnprocessableEntity, Field: "Idempotency-Key", Detail: err.Error()}
	case errors.Is(err, idempotency.ErrInFlight):
		err = &service.Problem{Status: http.StatusConflict, Field: "Idempotency-Key", Detail: err.Error()}
	}
	service.WriteError(w, r, s.log, err)
}
