package all_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// wantTrace is the trace of an order, from the request to the mail: each span as
// "service: name (kind)" below its parent.
var wantTrace = []string{
	"order: POST /v1/orders (server)",
	"  order: send orders (producer)",
	"    email: process orders (consumer)",
	"    inventory: process orders (consumer)",
	"      inventory: send inventory (producer)",
	"        order: process inventory (consumer)",
	"          order: send orders (producer)",
	"            email: process orders (consumer)",
	"              email: send emails (producer)",
	"              email: smtp send (client)",
}

// TestOneTrace is promise 10.
func TestOneTrace(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	s.receive("mug", 10)
	key := newKey()
	asked := s.send("POST", "/v1/orders", draftOf(line{"mug", 2, 1250}), "Idempotency-Key", key)
	o := s.accept(asked)
	s.mails(o.OrderID, 1)
	spans := s.trace(o.TraceID, len(wantTrace))
	facts := map[string]fact{} // by ID
	for _, topic := range topics {
		for _, f := range s.factsOf(topic, o.OrderID) {
			facts[f.id] = f
		}
	}
	placed, reserved := s.one(facts, "OrderPlaced"), s.one(facts, "StockReserved")
	confirmed, sent := s.one(facts, "OrderConfirmed"), s.one(facts, "EmailSent")

	t.Run("spans, kinds and parents are those of the contract", func(t *testing.T) {
		if diff := cmp.Diff(wantTrace, tree(spans)); diff != "" {
			t.Errorf("trace (-want +got):\n%s", diff)
		}
	})
	t.Run("the client gets the trace's ID in the body and in traceresponse", func(t *testing.T) {
		if got := asked.header.Get("traceresponse"); !strings.Contains(got, o.TraceID) {
			t.Errorf("traceresponse is %q, want one of trace %s", got, o.TraceID)
		}
		if got := s.get(o.OrderID).TraceID; got != o.TraceID {
			t.Errorf("the order's trace_id is %q, want %q", got, o.TraceID)
		}
	})
	t.Run("a process span is linked to the producer's, others to nothing", func(t *testing.T) {
		for _, span := range spans {
			var want, got []trace.SpanID
			if span.SpanKind() == trace.SpanKindConsumer {
				want = append(want, span.Parent().SpanID())
			}
			for _, l := range span.Links() {
				got = append(got, l.SpanContext.SpanID())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s is linked to %v, want %v", span.Name(), got, want)
			}
		}
	})
	t.Run("messaging spans carry the attributes of the contract", func(t *testing.T) {
		for _, span := range spans {
			got := attributes(span)
			if want := messaging(s, span, facts[got["messaging.message.id"]]); want != nil {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", span.Name(), diff)
				}
			}
		}
	})
	t.Run("the server's span tells route and status, the client's its server", func(t *testing.T) {
		server, client := attributes(spans[0]), map[string]string{}
		for _, span := range spans {
			if span.SpanKind() == trace.SpanKindClient {
				client = attributes(span)
			}
		}
		for name, want := range map[string]string{"http.request.method": "POST", "http.route": "/v1/orders", "http.response.status_code": "202"} {
			if server[name] != want {
				t.Errorf("%s is %q, want %q", name, server[name], want)
			}
		}
		if got := client["server.address"] + ":" + client["server.port"]; got != s.URLs.SMTP {
			t.Errorf("smtp send names the server %s, want %s", got, s.URLs.SMTP)
		}
	})
	t.Run("every record belongs to the trace, and names what caused it", func(t *testing.T) {
		for f, cause := range map[*fact]string{&placed: "", &reserved: placed.id, &confirmed: reserved.id, &sent: confirmed.id} {
			if f.traceID != o.TraceID || f.causation != cause {
				t.Errorf("%s has trace %s and cause %q, want %s and %q", f.typ, f.traceID, f.causation, o.TraceID, cause)
			}
		}
		if want := event.NewID("/order", event.Because(o.OrderID, key), placed.typ, 0); placed.id != want {
			t.Errorf("the ID of OrderPlaced is %s, want %s, derived from order and key", placed.id, want)
		}
		by := event.By(event.Meta{ID: placed.id, Source: "/order"})
		if want := event.NewID("/inventory", by, reserved.typ, 0); reserved.id != want {
			t.Errorf("the ID of StockReserved is %s, want %s, derived from its cause", reserved.id, want)
		}
	})
}

// A request may belong to a trace already; that one goes on, unless it is not trusted.
func TestOneTrace_ofTheClient(t *testing.T) {
	parallel(t)
	const client, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, tt := range []struct {
		name, trust string
		continued   bool
	}{{"a client's trace is continued", "true", true}, {"a client's trace that is not trusted is only linked", "false", false}} {
		t.Run(tt.name, func(t *testing.T) {
			parallel(t)
			s := open(t, map[string]string{"TRUST_TRACEPARENT": tt.trust})
			s.receive("mug", 1)
			o := s.accept(s.send("POST", "/v1/orders", draftOf(line{"mug", 1, 1}), "Idempotency-Key", newKey(),
				"traceparent", "00-"+client+"-"+parent+"-01"))
			if got := o.TraceID == client; got != tt.continued {
				t.Errorf("the order's trace is %s, the client's %s: continued %v, want %v", o.TraceID, client, got, tt.continued)
			}
			s.mails(o.OrderID, 1)
			root := s.trace(o.TraceID, len(wantTrace))[0]
			links := root.Links()
			if tt.continued {
				if got := root.Parent().SpanID().String(); got != parent {
					t.Errorf("the server's span has the parent %s, want %s", got, parent)
				}
			} else if len(links) != 1 || links[0].SpanContext.TraceID().String() != client {
				t.Errorf("the server's span has the links %v, want one to %s", links, client)
			}
		})
	}
}

// trace returns a trace once it has that many spans.
func (s *shop) trace(id string, n int) (spans []sdktrace.ReadOnlySpan) {
	s.Helper()
	tid, err := trace.TraceIDFromHex(id)
	if err != nil {
		s.Fatal(err)
	}
	eventually(s, "a trace of "+strconv.Itoa(n)+" spans", func() bool {
		spans = s.Trace(tid)
		return len(spans) >= n
	})
	return spans
}

// tree draws spans below their parents, those of one parent in alphabetical order.
func tree(spans []sdktrace.ReadOnlySpan) (lines []string) {
	known := map[trace.SpanID]bool{}
	for _, span := range spans {
		known[span.SpanContext().SpanID()] = true
	}
	var draw func(parent trace.SpanID, indent string) (lines []string)
	draw = func(parent trace.SpanID, indent string) (lines []string) {
		var below [][]string
		for _, span := range spans {
			if p := span.Parent().SpanID(); p == parent || !parent.IsValid() && !known[p] {
				head := indent + resource(span) + ": " + span.Name() + " (" + span.SpanKind().String() + ")"
				below = append(below, append([]string{head}, draw(span.SpanContext().SpanID(), indent+"  ")...))
			}
		}
		slices.SortFunc(below, slices.Compare)
		return slices.Concat(below...)
	}
	return draw(trace.SpanID{}, "")
}

// resource is the service that a span is of.
func resource(span sdktrace.ReadOnlySpan) string {
	name, _ := span.Resource().Set().Value("service.name")
	return name.AsString()
}

func attributes(span sdktrace.ReadOnlySpan) map[string]string {
	all := map[string]string{}
	for _, a := range span.Attributes() {
		all[string(a.Key)] = text(a.Value)
	}
	return all
}

func text(v attribute.Value) string {
	if v.Type() == attribute.INT64 {
		return strconv.FormatInt(v.AsInt64(), 10)
	}
	return v.AsString()
}

// messaging are the attributes of a span that sends or processes an event, and nil for any
// other span.
func messaging(s *shop, span sdktrace.ReadOnlySpan, f fact) map[string]string {
	operation, topic, _ := strings.Cut(span.Name(), " ")
	if span.SpanKind() != trace.SpanKindProducer && span.SpanKind() != trace.SpanKindConsumer {
		return nil
	}
	want := map[string]string{
		"messaging.system":                   "kafka",
		"messaging.operation.name":           operation,
		"messaging.operation.type":           operation,
		"messaging.destination.name":         topic,
		"messaging.message.id":               f.id,
		"messaging.destination.partition.id": strconv.Itoa(int(f.Partition)),
		"messaging.kafka.offset":             strconv.FormatInt(f.Offset, 10),
		"messaging.kafka.message.key":        f.key(),
		"cloudevents.event_type":             f.typ,
	}
	if operation == "process" {
		want["messaging.consumer.group.name"] = s.group(resource(span))
		want["attempt"] = "1"
	}
	return want
}

// one is the only fact of a type.
func (s *shop) one(facts map[string]fact, typ string) (found fact) {
	s.Helper()
	n := 0
	for _, f := range facts {
		if strings.HasSuffix(f.typ, "."+typ) {
			found = f
			n++
		}
	}
	if n != 1 {
		s.Fatalf("%d events of type %s, want 1", n, typ)
	}
	return found
}

// A customer's mail says what was ordered, under an ID that is the same in every repetition.
// It is promise 5, as far as nothing fails.
func TestMail(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	s.receive("mug", 10)
	o := s.place(line{"mug", 2, 1250})
	mail := s.mails(o.OrderID, 1)[0]
	var confirmed, told fact
	for _, f := range s.factsOf(schemas.TopicOrders, o.OrderID) {
		if f.typ == "shop.order.OrderConfirmed" {
			confirmed = f
		}
	}
	eventually(t, "EmailSent on its topic", func() bool {
		sent := s.factsOf(schemas.TopicEmails, o.OrderID)
		if len(sent) == 1 {
			told = sent[0]
		}
		return len(sent) > 0
	})
	wantID := "<" + confirmed.id + "@keyline.example>"
	if mail.ID != wantID {
		t.Errorf("the Message-ID is %s, want %s, which the event's ID gives", mail.ID, wantID)
	}
	if mail.Subject != "Your order is confirmed" || !slices.Equal(mail.To, []string{"ada@example.com"}) || mail.From != "shop@keyline.example" {
		t.Errorf("mail %q from %s to %v", mail.Subject, mail.From, mail.To)
	}
	for _, body := range []string{mail.Text, mail.HTML} {
		if !strings.Contains(body, o.OrderID) || !strings.Contains(body, "25.00 EUR") {
			t.Errorf("the mail does not name order and total:\n%s", body)
		}
	}
	if told.typ != "shop.email.EmailSent" || told.data["message_id"] != wantID || told.data["event_id"] != confirmed.id || told.data["kind"] != "confirmation" {
		t.Errorf("the topic says %s %v", told.typ, told.data)
	}
	ledger := s.ledger(o.OrderID)
	if len(ledger) != 1 || ledger[0].MessageID != wantID || ledger[0].EventID != confirmed.id || ledger[0].SentAt == nil {
		t.Errorf("the ledger has %+v", ledger)
	}
	if page := s.send("GET", "/orders/"+o.OrderID, nil).want(t, http.StatusOK).body; !strings.Contains(page, "smtp send") || !strings.Contains(page, wantID[1:20]) {
		t.Errorf("the order's page shows neither the trace nor the mail:\n%s", page)
	}
}
