package service

import (
	"encoding/json"
	"net/http"

	"go.opentelemetry.io/otel/trace"
)

// Problem is an error that the HTTP client is told as it stands.
type Problem struct {
	Status int    // the HTTP status, 4xx
	Detail string // what is wrong, for a person
	Field  string // where in the body, such as lines[2].quantity; may be empty
}

func (p *Problem) Error() string {
	if p.Field == "" {
		return p.Detail
	}
	return p.Field + ": " + p.Detail
}

// WriteProblem answers with an error as RFC 9457 has it, application/problem+json: the
// status with its usual title, the detail and the field if they are not empty, and the
// trace ID. Headers such as Retry-After are set before.
func WriteProblem(w http.ResponseWriter, r *http.Request, status int, detail, field string) {
	body := struct {
		Title   string `json:"title"`
		Status  int    `json:"status"`
		Detail  string `json:"detail,omitempty"`
		Field   string `json:"field,omitempty"`
		TraceID string `json:"trace_id,omitempty"`
	}{http.StatusText(status), status, detail, field, ""}
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		body.TraceID = sc.TraceID().String()
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(body) // a client that has gone needs no answer
}
