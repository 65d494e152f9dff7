package eventtest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/service/spectest"
)

// Answer is an HTTP answer that was read.
type Answer struct {
	*http.Response
	Text string
	JSON map[string]any // nil if it is no object; numbers are json.Number
}

// String is the status and the body.
func (a Answer) String() string { return fmt.Sprintf("%d %s", a.StatusCode, a.Text) }

// Ask sends a request with a JSON body, holds the answer against an openapi.yaml, and fails
// the test where that does not promise it. header are pairs of names and values.
func Ask(tb testing.TB, openAPI []byte, method, url, body string, header ...string) Answer {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	a := Answer{Response: res, Text: string(text)}
	if err := spectest.Read(openAPI).Judge(res, a.Text); err != nil {
		tb.Errorf("%s %s answers what openapi.yaml does not promise: %v\n%s", method, url, err, a.Text)
	}
	if v, err := spectest.Decode(a.Text); err == nil {
		a.JSON, _ = v.(map[string]any)
	}
	return a
}

func ready(url string) bool {
	res, err := http.Get(url + "/readyz")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// patience bounds every wait; none comes near it on a machine that works.
const patience = 60 * time.Second

// Until returns once ok holds, and fails the test if it does not within a minute.
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	until(tb, func() string {
		if ok() {
			return ""
		}
		return what
	}, func() string { return "" })
}

// until returns once nothing is missing. why is asked if that does not come.
func until(tb testing.TB, missing, why func() string) {
	tb.Helper()
	over := time.After(patience)
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for {
		what := missing()
		if what == "" {
			return
		}
		select {
		case <-over:
			tb.Fatalf("waited in vain for %v: %s\n%s", patience, what, why())
		case <-look.C:
		}
	}
}
