// Package spectest holds the answers of a service's tests against its openapi.yaml.
package spectest

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Spec is an openapi.yaml. It is safe for concurrent use.
type Spec map[string]any

// Read reads the file. It panics where the file is not indented as YAML is.
func Read(file []byte) Spec {
	var lines yamlLines
	for line := range strings.Lines(string(file)) {
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	return lines.node(0).(map[string]any)
}

// yamlLines reads as much of YAML as the file uses: maps and lists by their indentation,
// text folded by >-, and collections in one line, which are JSON too.
type yamlLines []string

func (l *yamlLines) indent() int {
	if len(*l) == 0 {
		return -1
	}
	return len((*l)[0]) - len(strings.TrimLeft((*l)[0], " "))
}

func (l *yamlLines) next() string {
	line := (*l)[0]
	*l = (*l)[1:]
	return strings.TrimSpace(line)
}

func (l *yamlLines) node(indent int) any {
	if strings.HasPrefix((*l)[0][indent:], "- ") {
		var list []any
		for l.indent() == indent {
			(*l)[0] = strings.Replace((*l)[0], "- ", "  ", 1)
			list = append(list, l.node(indent+2))
		}
		return list
	}
	m := map[string]any{}
	for l.indent() == indent {
		key, value, _ := strings.Cut(l.next(), ":")
		key, value = strings.Trim(key, `"`), strings.TrimSpace(value)
		switch {
		case value == "" && l.indent() > indent:
			m[key] = l.node(l.indent())
		case value == ">-":
			for l.indent() > indent {
				l.next()
			}
		default:
			m[key] = scalar(value)
		}
	}
	return m
}

func scalar(text string) any {
	if v, err := Decode(text); err == nil {
		return v
	}
	return text
}

// Decode reads JSON, its numbers as they are written.
func Decode(text string) (v any, err error) {
	if !json.Valid([]byte(text)) {
		return nil, errors.New("is not JSON")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v)
}

// in walks down the maps, and follows a reference where the walk ends.
func (s Spec) in(node map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		node, _ = node[key].(map[string]any)
	}
	if ref, ok := node["$ref"].(string); ok {
		return s.in(s, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return node
}

// Routes are the patterns that the file documents, but for the probes.
func (s Spec) Routes() (patterns []string) {
	for path, methods := range s.in(s, "paths") {
		for method := range methods.(map[string]any) {
			if strings.HasPrefix(path, "/v1/") {
				patterns = append(patterns, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(patterns)
	return patterns
}

// Judge says where an answer is not what the file promises.
func (s Spec) Judge(res *http.Response, body string) error {
	operation := s.in(s, "paths", s.template(res.Request.URL.EscapedPath()), strings.ToLower(res.Request.Method))
	promise := s.in(operation, "responses", fmt.Sprint(res.StatusCode))
	if promise == nil {
		return fmt.Errorf("status %d is not in the file", res.StatusCode)
	}
	for _, name := range []string{"Location", "Retry-After", "Idempotency-Replayed", "Traceresponse"} {
		header := s.header(promise, name)
		switch value := res.Header.Get(name); {
		case header == nil && value != "":
			return fmt.Errorf("header %s is not in the file", name)
		case header["required"] == true && value == "":
			return fmt.Errorf("header %s is promised, and not there", name)
		case header != nil && value != "":
			v := any(value)
			if s.in(header, "schema")["type"] == "integer" {
				v = json.Number(value)
			}
			if err := s.check(s.in(header, "schema"), v, name); err != nil {
				return err
			}
		}
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	schema := s.in(promise, "content", media, "schema")
	switch {
	case schema == nil:
		return fmt.Errorf("content type %q of status %d is not in the file", media, res.StatusCode)
	case !strings.HasSuffix(media, "json"):
		return nil
	}
	v, err := Decode(body)
	if err != nil {
		return fmt.Errorf("body %w", err)
	}
	return s.check(schema, v, "body")
}

func (s Spec) header(promise map[string]any, name string) map[string]any {
	for declared := range s.in(promise, "headers") {
		if strings.EqualFold(declared, name) {
			return s.in(promise, "headers", declared)
		}
	}
	return nil
}

// template is the path of the file that a request's path fills in.
func (s Spec) template(path string) string {
	for template := range s.in(s, "paths") {
		parts := regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(template), `[^/]+`)
		if regexp.MustCompile("^" + parts + "$").MatchString(path) {
			return template
		}
	}
	return ""
}

// check says where a value is not what a schema promises.
func (s Spec) check(schema map[string]any, v any, at string) error {
	schema = s.in(schema)
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s is %v, none of %v", at, v, enum)
	}
	fits := false
	switch v := v.(type) {
	case map[string]any:
		return s.checkObject(schema, v, at)
	case []any:
		for i, item := range v {
			if err := s.check(s.in(schema, "items"), item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		fits = schema["type"] == "array"
	case json.Number:
		fits = schema["type"] == "integer" && !strings.ContainsAny(v.String(), ".eE")
	case string:
		pattern, _ := schema["pattern"].(string)
		fits = schema["type"] == "string" && regexp.MustCompile(pattern).MatchString(v)
	case bool:
		fits = schema["type"] == "boolean"
	}
	if !fits {
		return fmt.Errorf("%s is %v, not of schema %v", at, v, schema)
	}
	return nil
}

func (s Spec) checkObject(schema, v map[string]any, at string) error {
	if schema["type"] != "object" {
		return fmt.Errorf("%s is an object, not %v", at, schema["type"])
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s.%s is promised, and not there", at, name)
		}
	}
	for name, member := range v {
		property := s.in(schema, "properties", name)
		if property == nil {
			return fmt.Errorf("%s.%s is not in the file", at, name)
		}
		if err := s.check(property, member, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

// Examples checks every example of the file against the schema that stands beside it. It
// returns how many there are and what is wrong with them.
func (s Spec) Examples() (n int, errs []error) {
	s.examples(map[string]any(s), "", func(at string, schema map[string]any, example any) {
		n++
		if err := s.check(schema, example, "the example"); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
	})
	return n, errs
}

func (s Spec) examples(node any, at string, fn func(at string, schema map[string]any, example any)) {
	switch node := node.(type) {
	case map[string]any:
		if example, ok := node["example"]; ok {
			schema := node
			if beside := s.in(node, "schema"); beside != nil {
				schema = beside
			}
			fn(at, schema, example)
		}
		for key, child := range node {
			if key != "example" {
				s.examples(child, at+"/"+key, fn)
			}
		}
	case []any:
		for i, child := range node {
			s.examples(child, fmt.Sprintf("%s/%d", at, i), fn)
		}
	}
}
