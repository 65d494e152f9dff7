package all_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
	"example.com/keyline/services/console"
)

// operator types commands beside a running shop, in a folder below the one where `make run`
// was typed.
type operator struct {
	*shop
	cfg console.Config
}

// typed is what a command has answered.
type typed struct {
	line      string
	code      int
	out, errs string
}

func (s *shop) operator() *operator {
	s.Helper()
	text, err := json.Marshal(s.URLs)
	if err != nil {
		s.Fatal(err)
	}
	dir := s.TempDir()
	below := filepath.Join(dir, "services", "order")
	for _, d := range []string{filepath.Join(dir, ".run"), below} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			s.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".run", "urls.json"), text, 0o600); err != nil {
		s.Fatal(err)
	}
	return &operator{s, console.Config{Dir: below}}
}

// types runs a command. Words may be quoted with '.
func (o *operator) types(format string, args ...any) typed {
	o.Helper()
	line := fmt.Sprintf(format, args...)
	var words []string
	for _, w := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(line, -1) {
		words = append(words, strings.Trim(w, "'"))
	}
	ctx, cancel := context.WithTimeout(o.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	code := console.Run(ctx, o.cfg, words[1:], &out, &errs)
	return typed{line, code, out.String(), errs.String()}
}

// want wants an exit code, and words in the answer, the errors included.
func (a typed) want(t testing.TB, code int, words ...string) typed {
	t.Helper()
	if a.code != code {
		t.Fatalf("%s: exit code %d, want %d\n%s%s", a.line, a.code, code, a.out, a.errs)
	}
	for _, w := range words {
		if !strings.Contains(a.out+a.errs, w) {
			t.Errorf("%s: %q is missing in\n%s%s", a.line, w, a.out, a.errs)
		}
	}
	return a
}

// json reads an answer given with --json.
func (a typed) json(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.out), v); err != nil {
		t.Fatalf("%s: %v in\n%s", a.line, err, a.out)
	}
}

// next is a command that an answer proposes, up to the end of its line.
func (a typed) next(t testing.TB, verb string) string {
	t.Helper()
	for _, line := range strings.Split(a.out+a.errs, "\n") {
		if i := strings.Index(line, "console "+verb); i >= 0 {
			return strings.TrimSpace(line[i:])
		}
	}
	t.Fatalf("%s: no %q is proposed in\n%s%s", a.line, "console "+verb, a.out, a.errs)
	return ""
}

// Somebody who has never seen the project finds, reads and redrives a poisoned order, typing
// only what the console proposes; promise 8.
func TestConsole_walk(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_MAX_BACKOFF": "20ms", "RETRY_ATTEMPTS": "3"})
	sku := newSKU("tea")
	o := s.trouble(sku, never)
	eventually(t, "a dead letter", func() bool { return s.waits("email", o.OrderID)[0].State == "dead" })
	op := s.operator()

	help := op.types("console --help").want(t, 0)
	found := op.types("%s", strings.Fields(help.next(t, "waiting ls"))[0]+" waiting ls").want(t, 0, "email", "dead", "behind", "permanent", "shop.order.OrderConfirmed")
	read := op.types("%s", found.next(t, "waiting show")).want(t, 0,
		o.OrderID, o.TraceID, "550", "total_cents", "traceparent", "queue of its key", "shop.order.OrderCancelled", "behind")

	op.types("%s", strings.TrimSuffix(read.next(t, "redrive"), " --yes")).want(t, 0, "nothing is done yet", o.OrderID)
	if n := len(s.ledger(o.OrderID)); o.refused() != 1 {
		t.Errorf("a dry run has sent something: %d refused, %d in the ledger", o.refused(), n)
	}
	o.mend()
	op.types("%s --wait 60s", read.next(t, "redrive")).want(t, 0, "is done")
	if got, want := subjects(s.mails(o.OrderID, 2)), []string{confirmedMail, cancelledMail}; !slices.Equal(got, want) {
		t.Errorf("mails %q, want %q", got, want)
	}
	s.quiet()
	op.types("console waiting ls --key %s", o.OrderID).want(t, 3, "nothing waits")
	op.types("%s", found.next(t, "waiting show")).want(t, 3, "console waiting ls")
}

func TestConsole_mends(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_MAX_BACKOFF": "20ms", "RETRY_ATTEMPTS": "2"})
	sku := newSKU("tea")
	o := s.trouble(sku, never)
	eventually(t, "a dead letter", func() bool { return s.waits("email", o.OrderID)[0].State == "dead" })
	op := s.operator()
	head, behind := s.waits("email", o.OrderID)[0].ID, s.waits("email", o.OrderID)[1].ID

	t.Run("JSON has pasteable IDs, and personal data only if asked", func(t *testing.T) {
		var list struct{ Items []struct{ ID, State string } }
		op.types("console waiting ls --each --json --key %s", o.OrderID).want(t, 0).json(t, &list)
		if len(list.Items) != 2 || list.Items[0].ID != "email/"+itoa(head) || list.Items[1].State != "behind" {
			t.Errorf("got %+v", list)
		}
		op.types("console tail --type OrderPlacd").want(t, 3, "known types are shop.order.OrderPlaced")
		op.types("console waiting ls --type OrderConfirmed").want(t, 0, "OrderConfirmed")
		op.types("console tail --key %s --type OrderPlaced", o.OrderID).want(t, 0, `"customer_email":"***"`)
		if a := op.types("console tail --unmask orders --json --from beginning --key %s", o.OrderID).want(t, 0, "ada@example.com"); strings.Count(a.out, "\n") != 3 {
			t.Errorf("want three lines of JSON:\n%s", a.out)
		}
	})

	t.Run("what is meant for another service is refused", func(t *testing.T) {
		asked := s.sendTo(s.URLs.Admin, "POST", fmt.Sprintf("/email/admin/waiting/%d/drop", head), map[string]string{"reason": "x"}, "Service-Name", "order")
		asked.want(t, http.StatusMisdirectedRequest)
		crossed := console.Config{Dir: t.TempDir(), Environ: map[string]string{"ADMIN_URLS": "order=" + s.URLs.Admin + "/email"}}
		var out, errs bytes.Buffer
		if code := console.Run(t.Context(), crossed, []string{"waiting", "ls"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "this is the service email") {
			t.Errorf("exit code %d, %s", code, &errs)
		}
	})

	t.Run("only the first of a key", func(t *testing.T) {
		op.types("console redrive email/%d --yes", behind).want(t, 1, "comes first", fmt.Sprintf("next: console waiting show email/%d", head))
		op.types("console redrive email/%d", behind).want(t, 1, "comes first", fmt.Sprintf("next: console waiting show email/%d", head))
		op.types("console waiting show email/%d", behind).want(t, 0, fmt.Sprintf("console waiting show email/%d", head))
	})

	t.Run("a redrive by filter shows first, and says what it refuses", func(t *testing.T) {
		op.types("console redrive --service email --error '550 5.1.1'").want(t, 0, "nothing is done yet", "--error '550 5.1.1' --service email --yes")
		op.types("console redrive --service inventory --all").want(t, 3, "nothing to redrive")
		for i := range 10 {
			op.types("console redrive --key %s --yes --wait 60s", o.OrderID).want(t, 1, "redriven: 1 of 1", fmt.Sprintf("email/%d failed again: mail server answered 550", head))
			if w := s.waits("email", o.OrderID)[0]; w.State != "dead" || w.Redrives != i+1 {
				t.Fatalf("it is said to have failed again, and is %+v", w)
			}
		}
		op.types("console redrive --all").want(t, 0, "redriven 10 times before: only with --force", "--force --yes")
		op.types("console redrive --all --yes").want(t, 1, "1 of 1 event was refused", fmt.Sprintf("next: console redrive email/%d --force --yes", head))
		op.types("console redrive email/%d --yes", head).want(t, 1, "--force --yes")
		var done struct {
			Redriven int
			Refused  []struct{ ID string }
		}
		op.types("console redrive --all --yes --json").want(t, 1).json(t, &done)
		if done.Redriven != 0 || len(done.Refused) != 1 || done.Refused[0].ID != fmt.Sprint("email/", head) {
			t.Errorf("got %+v", done)
		}
		op.types("console redrive --all --yes --force").want(t, 0, "redriven: 1 of 1")
		eventually(t, "dead again", func() bool {
			w := s.waits("email", o.OrderID)[0]
			return w.State == "dead" && w.Redrives == 11
		})
	})

	t.Run("a drop needs a reason, and lets the key go on", func(t *testing.T) {
		op.types("console drop email/%d --yes", head).want(t, 2, "--why")
		op.types("console drop email/%d --reason 'customer was called' --yes", behind).want(t, 1, fmt.Sprintf("email/%d of its key comes first", head))
		o.mend()
		op.types("console drop --reason 'customer was called' email/%d", head).want(t, 0, "nothing is done yet", o.OrderID)
		op.types("console drop --reason 'customer was called' email/%d --yes", head).want(t, 0, "dropped", o.OrderID, "OrderConfirmed")
		if got := subjects(s.mails(o.OrderID, 1)); !slices.Equal(got, []string{cancelledMail}) {
			t.Errorf("mails %q, want that of the cancellation", got)
		}
		if !slices.ContainsFunc(s.log.lines(), func(l string) bool { return strings.Contains(l, "customer was called") }) {
			t.Error("the log does not have the reason")
		}
	})
}

// A redrive of many goes in steps at its rate, can be stopped and goes on where it was.
func TestConsole_redriveIsResumed(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_MAX_BACKOFF": "20ms", "RETRY_ATTEMPTS": "1"})
	sku := newSKU("tea")
	s.receive(sku, 100)
	s.Mailbox().Fail(func(context.Context, embedded.Mail) error { return never })
	const n = 12
	var orders []accepted
	for range n {
		orders = append(orders, s.place(line{sku, 1, 450}))
	}
	eventually(t, "all are dead", func() bool {
		return !slices.ContainsFunc(orders, func(o accepted) bool {
			w := s.waits("email", o.OrderID)
			return len(w) == 0 || w[0].State != "dead"
		})
	})
	s.Mailbox().Fail(nil)
	op := s.operator()
	c, err := console.Open(op.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithCancel(t.Context())
	var at console.ID
	begun := time.Now()
	done, err := c.RedriveAll(ctx, console.Pass{Rate: 5, Progress: func(_ console.Redrives, last console.ID) {
		if at = last; last.N >= 5 {
			cancel()
		}
	}})
	if err == nil || done.Redriven != 5 || at.Service != "email" {
		t.Fatalf("got %+v, %v at %v, want the first step of 5 and an end", done, err, at)
	}
	done, err = c.RedriveAll(t.Context(), console.Pass{Rate: 5, After: at})
	if err != nil || done.Redriven != n-5 || time.Since(begun) < time.Second {
		t.Errorf("got %+v, %v after %v, want the other %d in no less than a second", done, err, time.Since(begun), n-5)
	}
	for _, o := range orders {
		s.mails(o.OrderID, 1)
	}
	s.quiet()
}

func TestConsole_watches(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("tea")
	s.receive(sku, 100)
	o := s.place(line{sku, 1, 450})
	s.mails(o.OrderID, 1)
	s.quiet()
	op := s.operator()

	t.Run("lag is zero when all is done, and grows when a service cannot take events", func(t *testing.T) {
		type lags struct {
			Items []struct {
				Service, Group, Topic string
				Records               int64
				Seconds               float64
			}
		}
		sum := func() (records int64, seconds float64, groups map[string]bool) {
			var all lags
			op.types("console lag --json").want(t, 0).json(t, &all)
			groups = map[string]bool{}
			for _, l := range all.Items {
				groups[l.Group] = true
				if records += l.Records; l.Records > 0 && l.Service == "email" {
					seconds = max(seconds, l.Seconds)
				}
			}
			return records, seconds, groups
		}
		eventually(t, "no lag", func() bool { n, _, _ := sum(); return n == 0 })
		_, _, groups := sum()
		for _, service := range services {
			if !groups[s.group(service)] || len(groups) != len(services) {
				t.Errorf("groups %v, want those of %v", groups, services)
			}
		}
		release := s.hold("email")
		s.place(line{sku, 1, 450})
		eventually(t, "a lag with an age", func() bool { n, age, _ := sum(); return n >= 1 && age > 0.05 })
		op.types("console lag --behind email").want(t, 0, s.group("email"), schemas.TopicOrders)
		release()
		s.quiet()
		op.types("console lag --behind nobody").want(t, 3)
		eventually(t, "no lag", func() bool { n, _, _ := sum(); return n == 0 })
		op.types("console lag --behind").want(t, 0, "no group is behind")
	})

	t.Run("outbox, skip and provision have nothing to tell", func(t *testing.T) {
		op.types("console outbox").want(t, 0, "email", "inventory", "order")
		op.types("console skip").want(t, 3, "no partition is stopped")
		if real["KAFKA_BROKERS"] == "" {
			op.types("console provision --plan").want(t, 0, "as declared")
		}
		op.types("console provision").want(t, 0, "as declared")
	})

	t.Run("tail follows", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := console.Open(op.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var late accepted
		seen := map[string]bool{}
		for r, err := range c.Tail(ctx, console.Tail{From: console.Moment{Time: time.Now().Add(-time.Hour)}, Follow: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if late.OrderID == "" { // it is reading by now
				late = s.place(line{sku, 1, 450})
			}
			if r.Key == late.OrderID {
				if r.TraceID != late.TraceID || r.Undecoded != "" {
					t.Errorf("got %+v, want the trace %s", r, late.TraceID)
				}
				if seen[r.Type] = true; len(seen) == 4 {
					return
				}
			}
		}
		t.Errorf("saw %v of the order that was placed meanwhile", seen)
	})

	t.Run("a replay runs what is repeatable once more, and refuses the rest", func(t *testing.T) {
		mails := len(s.Mailbox().Messages())
		op.types("console replay email orders --from beginning --key %s", o.OrderID).want(t, 0,
			"shop.order.OrderConfirmed", "not declared Repeatable", "shop.order.OrderPlaced", "yes", "nothing is done yet")
		var done struct {
			Queued, Scanned int
			Done            bool
			Matched         map[string]int
		}
		op.types("console replay email orders --from 1h --key %s --yes --json", o.OrderID).want(t, 0).json(t, &done)
		if done.Queued != 1 || !done.Done || done.Matched["shop.order.OrderPlaced"] != 1 {
			t.Errorf("got %+v, want OrderPlaced queued", done)
		}
		place := s.factsOf(schemas.TopicOrders, o.OrderID)[0]
		op.types("console replay email orders/%d@%d --key %s", place.Partition, place.Offset, o.OrderID).want(t, 0, "OrderPlaced")
		op.types("console replay nobody orders --from 1h").want(t, 2, "no service", "email, inventory, order")
		op.types("console replay email nowhere --from 1h").want(t, 2, "nowhere", "inventory.order.dlt, emails")
		op.types("console replay email orders/9@0").want(t, 2, "orders has no partition 9: they are 0 to 5")
		op.types("console replay email orders --from 1h --type OrderPlacd").want(t, 3, "known types are shop.order.OrderPlaced")
		op.types("console tail email").want(t, 2, "there are orders, orders.inventory.dlt")
		s.quiet()
		if n := len(s.Mailbox().Messages()); n != mails {
			t.Errorf("%d mails after the replay, want %d", n, mails)
		}
	})
}

// A partition that is stopped by a batch nobody can decompress goes on behind it when the
// operator says so, and nothing else is left out.
func TestConsole_skip(t *testing.T) {
	if real["KAFKA_BROKERS"] != "" {
		t.Skip("the batch would stay in a topic that others read; pkg/kafka skips one on a real broker")
	}
	t.Parallel()
	s := open(t, nil)
	sku := newSKU("tea")
	s.receive(sku, 100)
	first := s.place(line{sku, 1, 450})
	s.mails(first.OrderID, 1)
	cl := s.kafka(kgo.ProducerBatchMaxBytes(32<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	partition := s.factsOf(schemas.TopicOrders, first.OrderID)[0].Partition
	bomb := &kgo.Record{Topic: schemas.TopicOrders, Partition: partition, Key: []byte("bomb"), Value: make([]byte, 20<<20)}
	if err := cl.ProduceSync(t.Context(), bomb).FirstErr(); err != nil {
		t.Fatal(err)
	}
	op := s.operator()
	name := fmt.Sprintf("email/orders/%d", partition)
	eventually(t, "two stopped partitions", func() bool {
		return strings.Count(op.types("console skip").out, "batch_too_large") == 2
	})
	op.types("console skip %s", name).want(t, 0, "batch_too_large", "nothing is done yet", fmt.Sprintf("%d to %d (1)", bomb.Offset, bomb.Offset), name+" --yes")
	op.types("console lag --behind").want(t, 1, "batch_too_large", "2 partitions are stopped", "next: console skip")
	var lags struct {
		Items []struct {
			Stopped, Error string
			Seconds        *float64
		}
	}
	op.types("console lag --json --behind").want(t, 1).json(t, &lags)
	for _, l := range lags.Items {
		if l.Stopped != "" && (l.Seconds != nil || l.Error == "") {
			t.Errorf("got %+v, want no age, and why", l)
		}
	}
	var done struct{ Items []struct{ Service string } }
	op.types("console skip %s --yes --json", name).want(t, 0).json(t, &done)
	if len(done.Items) != 1 || done.Items[0].Service != "email" {
		t.Errorf("got %+v, want email's only", done)
	}
	op.types("console skip --yes").want(t, 0, fmt.Sprintf("inventory/orders/%d goes on at %d", partition, bomb.Offset+1))
	eventually(t, "nothing is stopped", func() bool { return op.types("console skip").code == 3 })
	for range 200 { // until one more has gone through that partition
		o := s.place(line{sku, 1, 450})
		s.mails(o.OrderID, 1)
		if slices.ContainsFunc(s.dump(schemas.TopicOrders), func(r *kgo.Record) bool { return string(r.Key) == o.OrderID && r.Partition == partition }) {
			s.quiet()
			left := fmt.Sprintf("orders/%d cannot be read from %d to %d, and is read on from orders/%d@%d", partition, bomb.Offset, bomb.Offset, partition, bomb.Offset+1)
			seen := op.types("console tail --from beginning --key %s", o.OrderID).want(t, 1, left, "shop.order.OrderPlaced", "next: console lag --behind")
			op.types("%s", seen.next(t, "lag --behind")).want(t, 0, "no group is behind")
			op.types("console replay email orders --from beginning --key %s", o.OrderID).want(t, 1, left, "let email handle 1 event again")
			op.types("console replay email orders --from beginning --key %s --yes", o.OrderID).want(t, 1, left, "queued: 1")
			op.types("console replay email orders/%d@%d --key %s --yes", partition, bomb.Offset+1, o.OrderID).want(t, 0, "queued: 1")
			return
		}
	}
	t.Error("200 keys, and none in that partition")
}

// ends calls end when a text was written to it.
type ends struct {
	bytes.Buffer
	when string
	end  func()
}

func (e *ends) Write(p []byte) (int, error) {
	defer func() {
		if strings.Contains(e.String(), e.when) {
			e.end()
		}
	}()
	return e.Buffer.Write(p)
}

// While a topic is missing the others are shown, and what to do is said. Once it is made
// anew, to let one of its partitions go on lets all of them.
func TestConsole_topicThatIsMissing(t *testing.T) {
	if real["KAFKA_BROKERS"] != "" {
		t.Skip("other tests need the topic")
	}
	t.Parallel()
	f := openTrial(t, nil)
	f.trade(5)
	f.settle()
	f.quiet()
	op := f.operator()
	gone := f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: schemas.TopicOrders, Err: kerr.TopicAuthorizationFailed, Count: -1})
	if err := f.cluster.DeleteTopic(schemas.TopicOrders); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is seen to be missing", func() bool {
		return strings.Contains(op.types("console skip").out, "topic orders does not exist; make it:  console provision")
	})
	op.types("console lag").want(t, 1, "inventory", "topic orders does not exist", "next: console provision")
	op.types("console tail --from beginning").want(t, 1, "shop.inventory.StockReserved", "topic orders does not exist", "next: console provision")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	told := &ends{when: "next: console provision", end: cancel}
	if code := console.Run(ctx, op.cfg, []string{"tail", "--follow", "--type", "Nothing"}, io.Discard, told); code != 1 || !strings.Contains(told.String(), "known types are") {
		t.Errorf("a tail that follows ends with %d and\n%s", code, told)
	}
	op.types("console replay email orders --from 1h").want(t, 1, "topic orders does not exist", "next: console provision")
	gone.Remove()
	op.types("console provision").want(t, 0, "orders")
	eventually(t, "it has been seen to be another", func() bool { return strings.Count(op.types("console skip").out, "topic_recreated  ") == 12 })
	op.types("console skip inventory/orders/0 --yes").want(t, 0, "all go on that are in the same process")
	op.types("console skip --yes").want(t, 0, "email/orders/5 goes on")
	eventually(t, "nothing is stopped", func() bool { return op.types("console skip").code == 3 })
}
