package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stub stands in for kubectl: "port-forward" says so and stays until it is ended, or ends at once
// while the file "gone" is there; "get job" prints a job as a cluster answers it.
const stub = `#!/bin/sh
for word; do
	case $word in
	port-forward)
		if [ -e "$STUB/gone" ]; then rm "$STUB/gone"; echo "error: lost connection to pod" >&2; exit 1; fi
		echo "Forwarding from 127.0.0.1:12345 -> 8080"
		exec cat "$STUB/open" ;;
	job) cat "$STUB/job.json"; exit ;;
	broken) echo '{"error": "no broker answers"}'; exit 1 ;;
	waiting | lag) echo '{"items": []}'; exit 3 ;;
	esac
done
echo "stub: $*" >&2
exit 7
`

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "shop")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kubectl"), []byte(stub), 0o700)
	}
	if err == nil {
		err = syscall.Mkfifo(filepath.Join(dir, "open"), 0o600) // nobody ever writes to it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	os.Setenv("STUB", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A way that breaks is opened again, and ends with its owner.
func TestForward_isOpenedAgain(t *testing.T) {
	if err := os.WriteFile(filepath.Join(os.Getenv("STUB"), "gone"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := cluster{namespace: "x"}.forward("service/order", 8080)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if url, err := f.at(ctx); err != nil || url != "http://127.0.0.1:12345" {
		t.Errorf("got %q, %v", url, err)
	}
	f.close()
}

// kubectl may go on to accept connections for a pod that is gone: such a way is given up.
func TestForward_isGivenUpWhenNothingAnswers(t *testing.T) {
	f := cluster{namespace: "x"}.forward("service/order", 8080)
	defer f.close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := f.once(ctx, "GET", "/", "", nil); err == nil { // nobody listens where the stub says
		t.Fatal("an answer from nowhere")
	}
	f.mu.Lock()
	first := f.open
	f.mu.Unlock()
	for ctx.Err() == nil { // it is closed, and then another is opened
		f.mu.Lock()
		again := f.open != first && f.url != ""
		f.mu.Unlock()
		if again {
			return
		}
		_ = wait(ctx, time.Millisecond)
	}
	t.Error("the way was not given up")
}

func TestForward_saysWhyThereIsNone(t *testing.T) {
	t.Parallel()
	f := &forward{open: make(chan struct{}), last: errors.New("no such service")}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.at(ctx); err == nil || !strings.Contains(err.Error(), "no such service") {
		t.Errorf("got %v, want the reason of the newest attempt", err)
	}
}

func TestKubectl_tellsWhatWasAskedAndAnswered(t *testing.T) {
	t.Parallel()
	_, err := cluster{namespace: "x"}.kubectl(t.Context(), "get", "moon")
	if err == nil || !strings.Contains(err.Error(), "kubectl get moon") || !strings.Contains(err.Error(), "stub: --namespace x get moon") || exitCode(err) != 7 {
		t.Errorf("got %v with exit code %d", err, exitCode(err))
	}
}

// way leads to a server of the test.
func way(t *testing.T, h http.HandlerFunc) *forward {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &forward{url: srv.URL}
}

// A request is repeated under its key while the shop does not answer it, and not when it says no.
func TestAsk(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	var keys []string
	f := way(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if asked.Add(1) < 3 {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"order_id": "o-1"}`)
	})
	var o order
	repeats, err := f.ask(t.Context(), "POST", "/v1/orders", "k", map[string]int{}, http.StatusAccepted, &o)
	if err != nil || repeats != 2 || o.ID != "o-1" || !slices.Equal(keys, []string{"k", "k", "k"}) {
		t.Errorf("got %+v after %d repeats with %q, %v", o, repeats, keys, err)
	}
	if _, err := f.ask(t.Context(), "POST", "/v1/orders", "k", nil, http.StatusCreated, nil); err == nil || !strings.Contains(err.Error(), "answers 202, want 201") {
		t.Errorf("got %v, want the status", err)
	}
}

func TestSettled(t *testing.T) {
	t.Parallel()
	r := &run{intake: way(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"order_id": "o-1", "status": "rejected"}`)
	})}
	if err := r.settled(t.Context(), &order{ID: "o-1"}, "confirmed"); err == nil || !strings.Contains(err.Error(), "o-1 is rejected, want confirmed") {
		t.Errorf("got %v", err)
	}
	if err := r.settled(t.Context(), &order{ID: "o-1"}, "rejected"); err != nil {
		t.Error(err)
	}
}

func TestSettlements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`[{"step": "placed"}, {"step": "stock reserved"}, {"step": "confirmed"}]`: 1,
		`[{"step": "placed"}, {"step": "confirmed"}, {"step": "confirmed"}]`:      2,
		`[{"step": "placed"}]`: 0,
	} {
		var o order
		if err := json.Unmarshal([]byte(`{"history": `+text+`}`), &o); err != nil {
			t.Fatal(err)
		}
		if got := settlements(o); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

// mailpit answers with the mails, as Mailpit does.
func mailpit(t *testing.T, mails ...[2]string) *forward {
	return way(t, func(w http.ResponseWriter, _ *http.Request) {
		list := []map[string]any{}
		for _, m := range mails {
			list = append(list, map[string]any{"MessageID": m[0], "Subject": "Your order is confirmed", "To": []map[string]string{{"Address": m[1]}}})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"messages": list})
	})
}

// What happened twice is found, though the first looks found nothing missing.
func TestCount(t *testing.T) {
	t.Parallel()
	once := [][2]string{{"m1", "ada"}}
	many := [][2]string{}
	for range inHand + 2 {
		many = append(many, once...)
	}
	for _, tt := range []struct {
		name     string
		steps    string
		mails    [][2]string
		reserved int
		want     string
	}{
		{name: "all is right", steps: `{"step": "confirmed"}`, mails: once, reserved: 1},
		{name: "a mail came again", steps: `{"step": "confirmed"}`, mails: [][2]string{{"m1", "ada"}, {"m1", "ada"}}, reserved: 1},
		{name: "mails come again and again", steps: `{"step": "confirmed"}`, mails: many, reserved: 1, want: "17 mails came again, want at most 16"},
		{name: "another mail", steps: `{"step": "confirmed"}`, mails: [][2]string{{"m1", "ada"}, {"m2", "ada"}}, reserved: 1, want: "order o-1 has the mails"},
		{name: "no mail", steps: `{"step": "confirmed"}`, reserved: 1, want: "order o-1 has the mails"},
		{name: "settled twice", steps: `{"step": "confirmed"}, {"step": "cancelled"}`, mails: once, reserved: 1, want: "settled 2 times"},
		{name: "reserved twice", steps: `{"step": "confirmed"}`, mails: once, reserved: 2, want: "the stock of tea is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &run{
				out: io.Discard, mailbox: mailpit(t, tt.mails...),
				intake: way(t, func(w http.ResponseWriter, _ *http.Request) {
					fmt.Fprintf(w, `{"order_id": "o-1", "status": "confirmed", "history": [{"step": "placed"}, %s]}`, tt.steps)
				}),
				inventory: way(t, func(w http.ResponseWriter, _ *http.Request) {
					fmt.Fprintf(w, `{"on_hand": 3, "reserved": %d, "available": %d}`, tt.reserved, 3-tt.reserved)
				}),
			}
			err := r.count(t.Context(), []order{{ID: "o-1", address: "ada"}}, "tea")
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTold(t *testing.T) {
	t.Parallel()
	o := order{ID: "o-1", address: "ada"}
	if err := (&run{mailbox: mailpit(t, [2]string{"m1", "ada"})}).told(t.Context(), o, []string{"confirmed"}); err != nil {
		t.Error(err)
	}
	twice := &run{mailbox: mailpit(t, [2]string{"m1", "ada"}, [2]string{"m1", "ada"})}
	if err := twice.told(t.Context(), o, []string{"confirmed"}); err == nil || !strings.Contains(err.Error(), "sent twice, though nothing failed") {
		t.Errorf("got %v, want that a mail was sent twice", err)
	}
}

// jaeger answers a trace as Jaeger does: a span that is linked to its parent has the link only.
const jaegerAnswer = `{"data": [{"traceID": "t", "processes": {"p1": {"serviceName": "order"}, "p2": {"serviceName": "email"}}, "spans": [
	{"traceID": "t", "spanID": "b", "operationName": "send orders", "processID": "p1", "startTime": 1100, "duration": 300, "references": [{"refType": "CHILD_OF", "traceID": "t", "spanID": "a"}]},
	{"traceID": "t", "spanID": "a", "operationName": "POST /v1/orders", "processID": "p1", "startTime": 1000, "duration": 200},
	{"traceID": "t", "spanID": "c", "operationName": "process orders", "processID": "p2", "startTime": 1500, "duration": 500, "references": [{"refType": "FOLLOWS_FROM", "traceID": "t", "spanID": "b"}]},
	{"traceID": "t", "spanID": "d", "operationName": "astray", "processID": "p2", "startTime": 1500, "duration": 1, "references": [{"refType": "FOLLOWS_FROM", "traceID": "other", "spanID": "b"}]}]}]}`

func TestTrace(t *testing.T) {
	t.Parallel()
	r := &run{jaeger: way(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/api/traces/t" {
			http.NotFound(w, req)
			return
		}
		io.WriteString(w, jaegerAnswer)
	})}
	want := []string{"email: astray", "order: POST /v1/orders", "  order: send orders", "    email: process orders"}
	got, err := r.trace(t.Context(), "t", want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.tree()); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if got.took() != time.Millisecond {
		t.Errorf("took %v, want 1ms", got.took())
	}
	if none, err := r.lookUp(t.Context(), "unknown"); err != nil || len(none.Spans) != 0 {
		t.Errorf("got %+v, %v for a trace that is not there yet", none, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.trace(ctx, "t", want[1:]); err == nil {
		t.Error("no error for a trace that differs")
	}
}

// A job that is made again is not what the cluster has made of it.
func TestJob(t *testing.T) {
	t.Parallel()
	text := `{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "provision", "namespace": "keyline", "uid": "u", "resourceVersion": "7", "labels": {"app.kubernetes.io/name": "provision"}},
		"spec": {"backoffLimit": 10, "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}, "template": {"metadata": {"labels":
		{"app.kubernetes.io/name": "provision", "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u", "job-name": "provision"}}, "spec": {"restartPolicy": "OnFailure"}}}, "status": {"succeeded": 1}}`
	if err := os.WriteFile(filepath.Join(os.Getenv("STUB"), "job.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := (&run{}).job(t.Context(), "provision")
	want := `{"apiVersion":"batch/v1","kind":"Job","metadata":{"labels":{"app.kubernetes.io/name":"provision"},"name":"provision","namespace":"keyline"},` +
		`"spec":{"backoffLimit":10,"template":{"metadata":{"labels":{"app.kubernetes.io/name":"provision"}},"spec":{"restartPolicy":"OnFailure"}}}}`
	if err != nil || got != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

// The console's exit code 3, nothing found, is an answer; an answer with another is none.
func TestConsole(t *testing.T) {
	t.Parallel()
	var found struct{ Items []any }
	if err := (&run{}).console(t.Context(), &found, "waiting", "ls"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := (&run{}).console(ctx, &found, "broken"); err == nil {
		t.Error("no error where the console fails")
	}
	if _, _, err := (&run{}).desk(t.Context()); err == nil {
		t.Error("no error where no group has read anything")
	}
}
