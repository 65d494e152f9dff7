package all_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// offsets are positions by topic and partition.
type offsets map[string]map[int32]int64

// topics are those of the shop's events.
var topics = []string{schemas.TopicOrders, schemas.TopicInventory, schemas.TopicEmails}

// consumed are the topics of each service.
var consumed = map[string]string{"order": schemas.TopicInventory, "inventory": schemas.TopicOrders, "email": schemas.TopicOrders}

// useOwnGroups gives the services consumer groups of their own on a real broker, which begin
// where the topics end now.
func (s *shop) useOwnGroups() {
	brokers := real["KAFKA_BROKERS"]
	if brokers == "" || s.cfg.Environ["KAFKA_BROKERS"] != brokers {
		return
	}
	prefix := "test-" + rand.Text()[:10]
	s.cfg.Environ["KAFKA_GROUP"] = prefix
	var all []kafka.Topic
	for _, t := range schemas.Topics() {
		all = append(all, kafka.Topic(t))
	}
	if err := kafka.Provision(s.Context(), kafka.Config{Brokers: strings.Split(brokers, ",")}, all); err != nil {
		s.Fatal(err)
	}
	s.starts = s.ends(topics...)
	s.rewind()
	s.Cleanup(func() {
		ctx := context.Background()
		admin, done := s.admin()
		defer done()
		for service, topic := range consumed {
			group := prefix + "-" + service
			if _, err := admin.DeleteGroup(ctx, group); err != nil {
				s.Errorf("delete the group %s: %v", group, err)
			}
			_, _ = admin.DeleteTopic(ctx, inbox.DeadLetterTopic(topic, group)) // there is none if the shop never opened
		}
	})
}

// rewind sets the groups to where this test's records begin. No shop must run.
func (s *shop) rewind() {
	s.Helper()
	admin, done := s.admin()
	defer done()
	for service, topic := range consumed {
		at := kadm.Offsets{}
		for p := range s.ends(topic)[topic] {
			at.AddOffset(topic, p, s.starts[topic][p], -1)
		}
		if err := admin.CommitAllOffsets(s.Context(), s.group(service), at); err != nil {
			s.Fatal(err)
		}
	}
}

// group is the consumer group of a service, whether the shop runs or not.
func (s *shop) group(service string) string {
	if prefix := s.cfg.Environ["KAFKA_GROUP"]; prefix != "" {
		return prefix + "-" + service
	}
	return service
}

// kafka speaks to the broker that the shop uses, or used when it last ran.
func (s *shop) kafka(opts ...kgo.Opt) *kgo.Client {
	s.Helper()
	brokers := s.cfg.Environ["KAFKA_BROKERS"]
	if brokers == "" {
		brokers = s.URLs.Kafka
	}
	cl, err := kgo.NewClient(append(append(opts, s.login...), kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.DisableClientMetrics())...)
	if err != nil {
		s.Fatal(err)
	}
	return cl
}

func (s *shop) admin() (admin *kadm.Client, done func()) {
	s.Helper()
	cl := s.kafka()
	return kadm.NewClient(cl), cl.Close
}

// ends are where topics end.
func (s *shop) ends(topics ...string) offsets {
	s.Helper()
	admin, done := s.admin()
	defer done()
	listed, err := admin.ListEndOffsets(s.Context(), topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		s.Fatal(err)
	}
	all := offsets{}
	listed.Each(func(o kadm.ListedOffset) {
		if all[o.Topic] == nil {
			all[o.Topic] = map[int32]int64{}
		}
		all[o.Topic][o.Partition] = o.Offset
	})
	return all
}

// dump reads all records of a topic that are this test's, each partition in its order.
func (s *shop) dump(topic string) (records []*kgo.Record) {
	s.Helper()
	end := s.ends(topic)[topic]
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, e := range end {
		begin := s.starts[topic][p] // 0 for a topic of this test's own
		if begin < e {
			from[p], left[p] = kgo.NewOffset().At(begin), e
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl := s.kafka(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			s.Fatalf("dump %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < left[r.Partition] && s.owns(string(r.Key)) {
				records = append(records, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return records
}

// deadLetters reads the copies of a group's dead letters.
func (s *shop) deadLetters(service string) []*kgo.Record {
	s.Helper()
	return s.dump(inbox.DeadLetterTopic(consumed[service], s.group(service)))
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// fact is a record of the shop's, read.
type fact struct {
	*kgo.Record
	typ, id, source, causation, traceID string
	version                             int64
	data                                map[string]any
}

func (f fact) key() string { return string(f.Key) }

// facts reads all records of a topic as any tool would: by the registry, without knowing
// their types.
func (s *shop) facts(topic string) (all []fact) {
	s.Helper()
	reader, err := codec.New(codec.Config{URL: s.URLs.Registry})
	if err != nil {
		s.Fatal(err)
	}
	for _, r := range s.dump(topic) {
		all = append(all, s.read(reader, r))
	}
	return all
}

// read reads a record as any tool would.
func (s *shop) read(reader *codec.Codec, r *kgo.Record) fact {
	s.Helper()
	f := fact{Record: r, id: header(r, "ce_id"), source: header(r, "ce_source"), causation: header(r, "ce_causationid")}
	var err error
	if f.typ, err = reader.Type(s.Context(), r.Value); err != nil {
		s.Fatal(err)
	}
	text, err := reader.JSON(s.Context(), r.Value, false)
	if err != nil {
		s.Fatal(err)
	}
	if err := json.Unmarshal(text, &f.data); err != nil {
		s.Fatal(err)
	}
	f.version, _ = strconv.ParseInt(header(r, "ce_aggregateversion"), 10, 64)
	if sc := event.SpanContext([]event.Header{{Key: event.HeaderTraceparent, Value: []byte(header(r, "traceparent"))}}); sc.IsValid() {
		f.traceID = sc.TraceID().String()
	}
	return f
}

// factsOf are the facts of one key.
func (s *shop) factsOf(topic, key string) (all []fact) {
	s.Helper()
	for _, f := range s.facts(topic) {
		if f.key() == key {
			all = append(all, f)
		}
	}
	return all
}

// write writes records as a producer that is not ours.
func (s *shop) write(records ...*kgo.Record) {
	s.Helper()
	cl := s.kafka()
	defer cl.Close()
	for _, r := range records {
		s.own(string(r.Key))
	}
	if err := cl.ProduceSync(s.Context(), records...).FirstErr(); err != nil {
		s.Fatal(err)
	}
}

// quiet returns when nothing of this test is under way: every record has been taken by every
// group, nothing waits but the dead, and nothing is left to publish.
func (s *shop) quiet() {
	s.Helper()
	admin, done := s.admin()
	defer done()
	eventually(s, "the shop is quiet", func() bool {
		before := s.ends(topics...)
		// The order matters: what is taken either waits or is done, and what is done has left
		// its events in the outbox. If the topics end where they did, none of them was new.
		if !s.caughtUp(admin, before) || s.anyWaits() || s.anyUnpublished() {
			return false
		}
		after := s.ends(topics...)
		for topic, partitions := range before {
			for p, end := range partitions {
				if after[topic][p] != end {
					return false
				}
			}
		}
		return true
	})
}

func (s *shop) caughtUp(admin *kadm.Client, to offsets) bool {
	s.Helper()
	for service, topic := range consumed {
		committed, err := admin.FetchOffsets(s.Context(), s.group(service))
		if err != nil {
			s.Fatal(err)
		}
		for p, end := range to[topic] {
			o, ok := committed.Lookup(topic, p)
			if end > 0 && (!ok || o.At < end) {
				return false
			}
		}
	}
	return true
}

func (s *shop) anyWaits() bool {
	s.Helper()
	for _, service := range services {
		for _, w := range s.waits(service, "") {
			if w.State != "dead" && w.State != "behind" && w.State != "set aside" && s.owns(w.Key) {
				return true
			}
		}
	}
	return false
}

func (s *shop) anyUnpublished() bool {
	s.Helper()
	return slices.ContainsFunc(services, func(service string) bool { return s.count(service, "outbox") > 0 })
}
