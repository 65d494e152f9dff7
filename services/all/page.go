package all

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/embedded"
)

//go:embed page/*
var pageFiles embed.FS

var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.Local().Format("15:04:05.000") },
	"ms":    func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) },
	"money": func(cents int64, currency string) string {
		return fmt.Sprintf("%d.%02d %s", cents/100, cents%100, currency)
	},
	"short": func(id string) string { return id[max(0, len(id)-8):] },
	"bare":  func(messageID string) string { return strings.Trim(messageID, "<>") },
}).ParseFS(pageFiles, "page/*.html"))

// orderRow is an order as the order service tells it.
type orderRow struct {
	OrderID       string    `json:"order_id"`
	CustomerID    string    `json:"customer_id"`
	CustomerEmail string    `json:"customer_email"`
	Status        string    `json:"status"`
	Reason        string    `json:"reason"`
	TotalCents    int64     `json:"total_cents"`
	Currency      string    `json:"currency"`
	PlacedAt      time.Time `json:"placed_at"`
	TraceID       string    `json:"trace_id"`
	Lines         []struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	} `json:"lines"`
	History []struct {
		Step string    `json:"step"`
		At   time.Time `json:"at"`
	} `json:"history"`
}

// Took is how long the order took to its last step.
func (o orderRow) Took() time.Duration {
	if len(o.History) == 0 {
		return 0
	}
	return o.History[len(o.History)-1].At.Sub(o.PlacedAt)
}

type mailRow struct {
	Kind      string     `json:"kind"`
	MessageID string     `json:"message_id"`
	SentAt    *time.Time `json:"sent_at"`
}

const (
	ordersShown = 15
	mailsShown  = 10
)

// pages registers the page at /, an order's page, and a mail's.
func (s *Shop) pages(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", s.serveHome)
	mux.HandleFunc("GET /orders/{id}", s.serveOrder)
	mux.HandleFunc("GET /mails/{id}", s.serveMail)
	mux.Handle("GET /page/style.css", http.FileServerFS(pageFiles))
	mux.Handle("GET /page/refresh.js", http.FileServerFS(pageFiles))
}

func (s *Shop) serveHome(w http.ResponseWriter, r *http.Request) {
	var list struct{ Items []orderRow }
	err := s.fetch(r.Context(), s.order.url.JoinPath("v1", "orders").String()+"?limit="+strconv.Itoa(ordersShown), &list)
	render(w, "home.html", map[string]any{"Orders": list.Items, "Mails": s.latestMails(), "Error": err, "Curl": s.curl(), "URLs": s.URLs, "HasMailbox": s.parts.mailbox != nil})
}

// latestMails are the newest mails of the embedded mailbox, newest first.
func (s *Shop) latestMails() []embedded.Mail {
	if s.parts.mailbox == nil {
		return nil
	}
	all := s.parts.mailbox.Messages()
	slices.Reverse(all)
	return all[:min(len(all), mailsShown)]
}

func (s *Shop) serveOrder(w http.ResponseWriter, r *http.Request) {
	var o orderRow
	var mails struct{ Items []mailRow }
	id := r.PathValue("id")
	err := s.fetch(r.Context(), s.order.url.JoinPath("v1", "orders", id).String(), &o)
	if err == nil {
		err = s.fetch(r.Context(), s.email.url.JoinPath("v1", "emails").String()+"?order_id="+o.OrderID, &mails)
	}
	var falls []fall
	if tid, bad := trace.TraceIDFromHex(o.TraceID); bad == nil {
		falls = s.falls(tid)
	}
	render(w, "order.html", map[string]any{"Order": o, "Mails": mails.Items, "Falls": falls, "Error": err})
}

func (s *Shop) serveMail(w http.ResponseWriter, r *http.Request) {
	if s.parts.mailbox != nil {
		for _, m := range s.parts.mailbox.Messages() {
			if strings.Trim(m.ID, "<>") == r.PathValue("id") {
				render(w, "mail.html", map[string]any{"Mail": m})
				return
			}
		}
	}
	http.NotFound(w, r)
}

// fetch asks a service as any client would.
func (s *Shop) fetch(ctx context.Context, from string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := s.inner.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the service answered %s", resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(into)
}

func render(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	if err := pageTemplates.ExecuteTemplate(w, name, data); err != nil {
		// The page has begun: all that is left is to say so in it.
		fmt.Fprintln(w, "<p>This page broke off.")
	}
}
