package email

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/keyline/pkg/service"
)

const (
	maxMails = 100 // of one order
	maxID    = 100 // characters of an order's ID, which another producer may have chosen
)

// routes are the public routes by their patterns; openapi.yaml tells the same.
func (s *Service) routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{"GET /v1/emails": s.serveList}
}

func (s *Service) mux() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, serve := range s.routes() {
		mux.HandleFunc(pattern, serve)
	}
	return mux
}

func (s *Service) serveList(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("order_id")
	if n := utf8.RuneCountInString(id); n < 1 || n > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, unprintable) {
		service.WriteError(w, r, s.log, &service.Problem{Status: http.StatusBadRequest, Field: "order_id", Detail: "must be an order's ID"})
		return
	}
	mails, err := list(r.Context(), s.db, id, maxMails)
	if err != nil {
		service.WriteError(w, r, s.log, err)
		return
	}
	service.WriteJSON(w, http.StatusOK, struct {
		Items []Mail `json:"items"`
	}{append([]Mail{}, mails...)})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
