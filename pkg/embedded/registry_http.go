package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/twmb/franz-go/pkg/sr"
)

const (
	maxSchemaBytes = 1 << 20 // of a request's body
	level          = "FULL_TRANSITIVE"
)

// ServeHTTP answers Confluent's API at the root of the URL; mount it elsewhere with
// http.StripPrefix.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, maxSchemaBytes)
	r.handler.ServeHTTP(w, req)
}

// routes lists what may change something, and what srfake answers otherwise than a real
// registry; every other GET is srfake's.
func (r *Registry) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /subjects/{subject}/versions", answer(r.postVersion))
	mux.Handle("POST /subjects/{subject}", r.fake.Handler()) // a look-up
	mux.Handle("POST /compatibility/subjects/{subject}/versions", answer(r.postCompatibility))
	mux.Handle("POST /compatibility/subjects/{subject}/versions/{version}", answer(r.postCompatibility))
	mux.Handle("GET /config", answer(getLevel))
	mux.Handle("GET /config/{subject}", answer(getLevel))
	mux.Handle("PUT /config", answer(putLevel))
	mux.Handle("PUT /config/{subject}", answer(putLevel))
	mux.Handle("GET /schemas/ids/{id}", answer(r.getByID))
	mux.Handle("GET /schemas/ids/{id}/schema", answer(r.getTextByID))
	mux.Handle("GET /{$}", answer(func(*http.Request) (any, error) { return struct{}{}, nil }))
	mux.Handle("GET /", r.fake.Handler())
	mux.Handle("/", answer(func(*http.Request) (any, error) {
		return nil, &refusal{http.StatusMethodNotAllowed, http.StatusMethodNotAllowed, "the embedded registry keeps every schema and offers no such change"}
	}))
	return mux
}

// answer writes what fn returns as JSON, an error in Confluent's form.
func answer(fn func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := fn(req)
		status := http.StatusOK
		if err != nil {
			var known *refusal
			if !errors.As(err, &known) {
				known = &refusal{http.StatusInternalServerError, sr.ErrStoreError.Code, err.Error()}
			}
			body, status = known, known.status
		}
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		w.WriteHeader(status)
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false) // a schema's text stays as it was registered
		encoder.Encode(body)         // an error here means that the client has gone
	})
}

func (r *Registry) postVersion(req *http.Request) (any, error) {
	schema, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	id, err := r.register(req.PathValue("subject"), schema)
	return map[string]int{"id": id}, err
}

// postCompatibility tells whether the schema could be registered: it is judged against all
// versions, whichever the URL names, since all count at this level.
func (r *Registry) postCompatibility(req *http.Request) (any, error) {
	subject, version := req.PathValue("subject"), req.PathValue("version")
	text, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	s, err := newSchema(subject, text)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	versions := r.versions(subject)
	r.mu.Unlock()
	if n, err := strconv.Atoi(version); err == nil && (n < 1 || n > len(versions)) {
		return nil, notFound(sr.ErrVersionNotFound, fmt.Sprintf("Version %d not found.", n))
	}
	err = judge(subject, versions, s.Schema)
	var known *refusal
	if errors.As(err, &known) && known.status == http.StatusConflict {
		return map[string]any{"is_compatible": false, "messages": []string{known.Message}}, nil
	}
	return map[string]any{"is_compatible": true}, err
}

func (r *Registry) getByID(req *http.Request) (any, error) {
	text, err := r.textByID(req)
	return map[string]string{"schema": text}, err
}

func (r *Registry) getTextByID(req *http.Request) (any, error) {
	text, err := r.textByID(req)
	return json.RawMessage(text), err
}

// textByID leaves the subject out of account, as a real registry does: Confluent's
// deserializers name the one of their own default strategy.
func (r *Registry) textByID(req *http.Request) (string, error) {
	id, err := strconv.Atoi(req.PathValue("id"))
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.byID(id)
	if err != nil || !ok {
		return "", notFound(sr.ErrSchemaNotFound, fmt.Sprintf("Schema %s not found", req.PathValue("id")))
	}
	return known.Schema, nil
}

func getLevel(*http.Request) (any, error) {
	return map[string]string{"compatibilityLevel": level}, nil
}

// putLevel accepts the level that is in force anyway.
func putLevel(req *http.Request) (any, error) {
	var body struct {
		Compatibility string `json:"compatibility"`
	}
	if err := readJSON(req, &body); err != nil {
		return nil, err
	}
	if body.Compatibility != level {
		return nil, &refusal{http.StatusUnprocessableEntity, sr.ErrInvalidCompatibilityLevel.Code, "the embedded registry is " + level + " for good"}
	}
	return body, nil
}

func readSchema(req *http.Request) (string, error) {
	var body struct {
		Schema     string            `json:"schema"`
		SchemaType string            `json:"schemaType"`
		References []json.RawMessage `json:"references"`
	}
	if err := readJSON(req, &body); err != nil {
		return "", err
	}
	if body.SchemaType != "" && body.SchemaType != "AVRO" {
		return "", invalidSchema("the embedded registry takes Avro, not " + body.SchemaType)
	}
	if len(body.References) > 0 {
		return "", invalidSchema("the embedded registry takes no references")
	}
	return body.Schema, nil
}

func readJSON(req *http.Request, v any) error {
	err := json.NewDecoder(req.Body).Decode(v)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &refusal{http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge, tooLarge.Error()}
	}
	if err != nil {
		return &refusal{http.StatusBadRequest, http.StatusBadRequest, "the request's body is not the JSON expected: " + err.Error()}
	}
	return nil
}

func notFound(kind *sr.Error, message string) error {
	return &refusal{http.StatusNotFound, kind.Code, message}
}
