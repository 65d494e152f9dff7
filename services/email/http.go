package email

import (
	"net/http"
	"unicode/utf8"

	"example.com/keyline/pkg/service"
)

const maxMails = 100 // of one order

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/emails", s.serveList)
	return mux
}

func (s *Service) serveList(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("order_id")
	if id == "" || len(id) > 100 || !utf8.ValidString(id) {
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
