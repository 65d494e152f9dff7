package eventtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// Rig is one service on a Kafka, a registry, a mailbox and a database of its own, seen by a
// test that stands beside it: it publishes what others would, and reads all topics. Its
// methods fail the test instead of returning errors, and belong to the test's goroutine.
type Rig struct {
	testing.TB
	Kafka   *embedded.Kafka
	Mailbox *embedded.Mailbox // SMTP_ADDR of the service
	DB      *db.DB            // the service's, for what the test wants to see or to prepare
	Logs    *Log              // of all replicas

	contract *Contract
	service  Service
	environ  map[string]string
	producer *kafka.Producer
	topics   *tap
	codecs   map[string]*codec.Codec // by the event they are for
	versions map[string]int64        // of the events made, by source and key
	made     int
	mine     map[string]bool // the labels of what the test has published
	inputs   map[string]bool // the topics that it has published to
	replicas []*Replica
}

// New makes a rig that ends with the test. The database is a new one on the PostgreSQL of
// DATABASE_URL, or a SQLite file. The service is not started yet.
func New(tb testing.TB, c *Contract, s Service) *Rig {
	tb.Helper()
	r := &Rig{
		TB: tb, Logs: &Log{}, contract: c, service: s, topics: &tap{next: map[string]int64{}},
		codecs: map[string]*codec.Codec{}, versions: map[string]int64{}, mine: map[string]bool{}, inputs: map[string]bool{},
	}
	var topics []embedded.Topic
	for _, t := range c.topics {
		topics = append(topics, embedded.Topic(t))
	}
	r.environ = map[string]string{"DATABASE_URL": dbtest.URL(tb), "SCHEMA_REGISTRY_URL": c.Registry(tb), "KAFKA_GROUP": s.Name}
	var err error
	r.DB, err = db.Open(db.Config{URL: r.environ["DATABASE_URL"]})
	r.owns(err, func() error { return r.DB.Close() })
	r.Kafka, err = embedded.StartKafka(embedded.KafkaConfig{Topics: topics})
	r.owns(err, func() error { return r.Kafka.Close() })
	r.Mailbox, err = embedded.StartMailbox(embedded.MailboxConfig{})
	r.owns(err, func() error { return r.Mailbox.Close() })
	r.environ["KAFKA_BROKERS"], r.environ["SMTP_ADDR"] = r.Kafka.Addr(), r.Mailbox.Addr()
	r.producer, err = kafka.NewProducer(kafka.Config{Brokers: []string{r.Kafka.Addr()}})
	r.owns(err, func() error { r.producer.Close(); return nil })
	r.read()
	return r
}

func (r *Rig) owns(err error, end func() error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := end(); err != nil {
			r.Error(err)
		}
	})
}

// read reads all topics from their beginning, until the end of the test.
func (r *Rig) read() {
	r.Helper()
	var names []string
	for _, t := range r.contract.topics {
		names = append(names, t.Name)
	}
	c, err := kafka.NewConsumer(kafka.Config{Brokers: []string{r.Kafka.Addr()}, Group: "eventtest"}, names, r.topics)
	if err != nil {
		r.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	r.owns(nil, func() error { stop(); return <-ended })
}

// tap keeps the records of all topics.
type tap struct {
	mu      sync.Mutex
	records []event.Record
	next    map[string]int64 // offsets, by topic and partition
}

// Process takes a batch.
func (t *tap) Process(_ context.Context, b event.Batch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := place(b.Topic, b.Partition)
	for _, rec := range b.Records {
		if rec.Offset >= t.next[at] {
			t.records, t.next[at] = append(t.records, rec), rec.Offset+1
		}
	}
	return nil
}

func (t *tap) all() []event.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.records)
}

func (t *tap) position(topic string, partition int32) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next[place(topic, partition)]
}

func place(topic string, partition int32) string { return topic + "/" + strconv.Itoa(int(partition)) }

// label tells events apart: by ID and source, or by all that a foreign record has.
func label(rec *event.Record) string {
	if id := rec.Header(event.HeaderID); id != nil {
		return fmt.Sprintf("%s %s %s", rec.Topic, rec.Header(event.HeaderSource), id)
	}
	return fmt.Sprintf("%s %q %q", rec.Topic, rec.Key, rec.Value)
}

// Event is the record of an event as a service of ours would publish it: its ID follows from
// how many events the rig has made before, its version counts from 1 for each key. source is
// the service, such as "/order".
func (r *Rig) Event(source string, p event.Payload) event.Record {
	r.Helper()
	r.made++
	aggregate := source + " " + p.Key()
	r.versions[aggregate]++
	id := event.NewID(source, event.Because("eventtest", strconv.Itoa(r.made)), codec.FullName(p.Schema()), 0)
	return Record(r, r.codec(p), p, event.Meta{ID: id, Source: source, Version: r.versions[aggregate]})
}

// Foreign is the record of an event from a producer that knows the schema, and nothing of
// our headers.
func (r *Rig) Foreign(p event.Payload) event.Record {
	r.Helper()
	rec := Record(r, r.codec(p), p, event.Meta{})
	rec.Headers = nil
	return rec
}

func (r *Rig) codec(p event.Payload) *codec.Codec {
	typ := codec.FullName(p.Schema())
	if r.codecs[typ] == nil {
		r.codecs[typ] = r.contract.NewCodec(r, p)
	}
	return r.codecs[typ]
}

// Publish writes records to their topics, and returns when the broker has them.
func (r *Rig) Publish(records ...event.Record) {
	r.Helper()
	for i := range records {
		r.mine[label(&records[i])], r.inputs[records[i].Topic] = true, true
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	for i, err := range r.producer.Publish(ctx, records) {
		if err != nil {
			r.Fatalf("publish to %s: %v", records[i].Topic, err)
		}
	}
}

// until returns once nothing is missing.
func (r *Rig) until(missing func() string) {
	r.Helper()
	until(r, missing, r.Logs.complaints)
}

// Await waits until there are n events of one type on their topic, those of a key or, if it
// is empty, of all keys, and returns them in the order in which they were first seen.
func Await[P event.Payload](r *Rig, key string, n int) (events []event.Event[P]) {
	r.Helper()
	var p P
	c, typ := r.codec(p), codec.FullName(p.Schema())
	r.until(func() string {
		events = nil
		seen := map[string]bool{}
		for _, rec := range r.topics.all() {
			if rec.Topic != p.Topic() || key != "" && string(rec.Key) != key || seen[label(&rec)] {
				continue
			}
			if is, err := c.Type(r.Context(), rec.Value); err != nil || is != typ {
				continue
			}
			data, err := codec.Decode[P](r.Context(), c, rec.Value)
			if err != nil {
				r.Fatal(err)
			}
			seen[label(&rec)] = true
			meta := event.ReadMeta(&rec, typ)
			meta.Trace = event.SpanContext(rec.Headers)
			events = append(events, event.Event[P]{Data: data, Meta: meta})
		}
		if len(events) >= n {
			return ""
		}
		return fmt.Sprintf("%d of %d %s of key %q", len(events), n, name(typ), key)
	})
	return events
}

// Settle waits until the service has nothing left to do: it has read what the rig has
// published, no event waits but behind a dead letter, and all that it emits is published.
func (r *Rig) Settle() {
	r.Helper()
	r.until(r.unsettled)
}

// unsettled says what is still under way. What comes first feeds what comes after.
func (r *Rig) unsettled() string {
	for _, look := range []func() string{
		r.unread,
		func() string {
			return r.rows("keys wait", `select count(*) from waiting_key where state <> 'dead'`)
		},
		func() string { return r.rows("events are in the outbox", `select count(*) from outbox`) },
		r.unseen,
		r.unread, // of its own events
	} {
		if missing := look(); missing != "" {
			return missing
		}
	}
	return ""
}

func (r *Rig) rows(what, query string) string {
	var n int
	if err := r.DB.QueryRow(r.Context(), query).Scan(&n); err != nil || n > 0 {
		return fmt.Sprintf("%d %s, error %v", n, what, err)
	}
	return ""
}

func (r *Rig) unread() string {
	group := r.Kafka.Cluster().GroupInfo(r.service.Name)
	if group == nil {
		return "the group " + r.service.Name + " does not exist"
	}
	topics := map[string]bool{}
	for _, m := range group.Members {
		for _, t := range m.SubscribedTopics {
			topics[t] = true
		}
	}
	for t := range r.inputs {
		topics[t] = true
	}
	for t := range topics {
		for _, p := range r.Kafka.Cluster().PartitionInfos(t) {
			if at := group.Commits[t][p.Partition].Offset; at < p.HighWatermark {
				return fmt.Sprintf("the group %s is at %d of %d in %s", group.Group, at, p.HighWatermark, place(t, p.Partition))
			}
		}
	}
	return ""
}

func (r *Rig) unseen() string {
	for _, t := range r.contract.topics {
		for _, p := range r.Kafka.Cluster().PartitionInfos(t.Name) {
			if at := r.topics.position(t.Name, p.Partition); at < p.HighWatermark {
				return fmt.Sprintf("the rig has read %d of %d in %s", at, p.HighWatermark, place(t.Name, p.Partition))
			}
		}
	}
	return ""
}

// emitted are the events that the service has published so far, by what tells them apart.
func (r *Rig) emitted() map[string]string {
	events := map[string]string{}
	for _, rec := range r.topics.all() {
		if l := label(&rec); !r.mine[l] {
			events[l] = fmt.Sprintf("%s of key %s, on %s, ID %s", name(string(rec.Header(event.HeaderType))), rec.Key, rec.Topic, rec.Header(event.HeaderID))
		}
	}
	return events
}
