package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// DecodeJSON reads the request's body into v, a pointer to a struct. It takes exactly one
// JSON object, of UTF-8, at most maxBytes long and 32 levels deep, whose fields v has in
// that very spelling, each at most once and of the right type; a null counts as absent, which a
// field with the tag `required:"true"` must not be.
// Every error is a [*Problem]: 400, 408 (the body did not come in time), 413 or 415 (it is
// not application/json), with the path of the field. What v holds then is undefined.
func DecodeJSON(w http.ResponseWriter, r *http.Request, maxBytes int64, v any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &Problem{Status: http.StatusUnsupportedMediaType, Detail: "Content-Type must be application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBytes))
	if err != nil {
		return bodyProblem(err)
	}
	if !utf8.Valid(body) {
		return bad("", "the body is not valid UTF-8")
	}
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return bad("", "the body must be a JSON object")
	}
	err = json.Unmarshal(body, v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && !json.Valid(body) { // an UnmarshalJSON of v's may say the same of its part
		return broken(body)
	}
	// What is not allowed at all comes before what is of the wrong type.
	if err := walkJSON(body, reflect.TypeOf(v), -1); err != nil {
		return err
	}
	var mismatch *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mismatch):
		where := &Problem{Status: http.StatusBadRequest}
		_ = errors.As(walkJSON(body, reflect.TypeOf(v), mismatch.Offset), &where)
		where.Detail = "must be " + typeName(mismatch.Type)
		return where
	default: // an UnmarshalText or UnmarshalJSON of v's
		return bad("", cut(err.Error()))
	}
}

func bodyProblem(err error) error {
	var tooLarge *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &tooLarge):
		return &Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is longer than %d bytes", tooLarge.Limit)}
	case errors.As(err, &network) && network.Timeout():
		return &Problem{Status: http.StatusRequestTimeout, Detail: "the body did not come in time"}
	}
	return bad("", "the body ended too early")
}

const (
	maxDepth = 32
	maxEcho  = 128 // bytes of the client's own text in an error
)

// jsonWalk goes through a text that is one JSON object, token by token, beside the type that it is
// meant for.
type jsonWalk struct {
	text   []byte
	at     int
	path   []step // to the value that it is at
	target int64  // stop with the path of the value that ends here; -1: check all
}

// step leads from an object to a member, or from an array to an element.
type step struct {
	name  string
	index int // of an element; -1 of a member
}

// walkJSON checks what encoding/json lets pass. With a target it returns, as a
// problem, the path of the value that is there.
func walkJSON(body []byte, t reflect.Type, target int64) error {
	return (&jsonWalk{text: body, path: make([]step, 0, 8), target: target}).value(t)
}

// bad is a problem of the value that it is at.
func (w *jsonWalk) bad(detail string) error {
	var path strings.Builder
	for _, s := range w.path {
		if s.index >= 0 {
			fmt.Fprintf(&path, "[%d]", s.index)
			continue
		}
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.WriteString(cut(s.name))
	}
	return bad(path.String(), detail)
}

// broken is what is wrong with a text that is no JSON object, or more than one.
func broken(body []byte) error {
	var first json.RawMessage
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&first)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return bad("", "data after the JSON object")
	case errors.As(err, &syntax):
		return bad("", fmt.Sprintf("malformed JSON at byte %d: %v", syntax.Offset, err))
	}
	return bad("", fmt.Sprintf("malformed JSON at byte %d: it ends in the middle", len(body)))
}

func bad(path, detail string) error {
	return &Problem{Status: http.StatusBadRequest, Detail: detail, Field: path}
}

// peek is the first byte of the next token.
func (w *jsonWalk) peek() byte {
	for strings.IndexByte(" \t\r\n,:", w.text[w.at]) >= 0 {
		w.at++
	}
	return w.text[w.at]
}

// next is the next token as it is written: a delimiter, a string in its quotes, or another value.
func (w *jsonWalk) next() []byte {
	first, begin := w.peek(), w.at
	switch first {
	case '{', '}', '[', ']':
		w.at++
	case '"':
		for w.at++; w.text[w.at] != '"'; w.at++ {
			if w.text[w.at] == '\\' {
				w.at++
			}
		}
		w.at++
	default:
		for strings.IndexByte(" \t\r\n,]}", w.text[w.at]) < 0 {
			w.at++
		}
	}
	return w.text[begin:w.at]
}

// unquote is what a string says; empty for another token.
func unquote(raw []byte) (text string) {
	switch {
	case raw[0] != '"':
	case bytes.IndexByte(raw, '\\') < 0:
		text = string(raw[1 : len(raw)-1])
	default:
		_ = json.Unmarshal(raw, &text) // it is well-formed
	}
	return text
}

// half reports whether a string holds half of a surrogate pair, which is no character, and for which
// the decoder puts another one.
func half(raw []byte) bool {
	for i := 0; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // behind the backslash
		if raw[i] != 'u' {
			continue
		}
		first, second := escaped(raw[i-1:]), escaped(raw[min(i+5, len(raw)):])
		switch {
		case !utf16.IsSurrogate(first):
		case utf16.DecodeRune(first, second) == utf8.RuneError:
			return true
		default:
			i += 6 // the other half
		}
	}
	return false
}

// escaped is the code of a \u with its four digits at the beginning of a text, -1 if there is none.
func escaped(raw []byte) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	code, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(code)
}

func (w *jsonWalk) value(t reflect.Type) error {
	raw := w.next()
	nested := raw[0] == '{' || raw[0] == '['
	switch {
	case w.target >= 0 && int64(w.at) >= w.target:
		return w.bad("")
	case nested && len(w.path) == maxDepth:
		return w.bad(fmt.Sprintf("is nested more than %d levels deep", maxDepth))
	case raw[0] == '{':
		return w.object(t)
	case raw[0] == '[':
		return w.array(t)
	case bytes.IndexByte(raw, '\\') < 0: // none of what follows can be written otherwise
		return nil
	case strings.IndexByte(unquote(raw), 0) >= 0:
		return w.bad("must not contain a NUL character") // which a database would refuse
	case half(raw):
		return w.bad("must not contain half of a surrogate pair")
	}
	return nil
}

func (w *jsonWalk) object(t reflect.Type) error {
	object := objectOf(t)
	seen := map[string]bool{} // and whether it is more than a null
	for w.peek() != '}' {
		raw := w.next()
		name := unquote(raw)
		typ, known := object.member(name)
		_, twice := seen[name]
		w.path = append(w.path, step{name, -1})
		switch {
		case half(raw):
			return w.bad("must not contain half of a surrogate pair")
		case !known:
			return w.bad("unknown field")
		case twice:
			return w.bad("is there twice")
		}
		seen[name] = w.peek() != 'n'
		if err := w.value(typ); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.next()
	for _, name := range object.required {
		if !seen[name] {
			w.path = append(w.path, step{name, -1})
			return w.bad("is missing")
		}
	}
	return nil
}

func (w *jsonWalk) array(t reflect.Type) error {
	var element reflect.Type
	if t = concrete(t); t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	for i := 0; w.peek() != ']'; i++ {
		w.path = append(w.path, step{index: i})
		if err := w.value(element); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.next()
	return nil
}

func cut(text string) string {
	if len(text) <= maxEcho {
		return text
	}
	return strings.ToValidUTF8(text[:maxEcho], "") + "…"
}
