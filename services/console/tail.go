package console

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// Record is a record of a topic, decoded.
type Record struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Time      time.Time         `json:"time"` // when the event happened
	Key       string            `json:"key"`  // quoted as in Go if it is no UTF-8
	Type      string            `json:"type,omitempty"`
	EventID   string            `json:"event_id"`
	TraceID   string            `json:"trace_id,omitempty"`
	Source    string            `json:"source,omitempty"`
	Version   int64             `json:"aggregate_version,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Event     json.RawMessage   `json:"event,omitempty"`
	Undecoded string            `json:"undecoded,omitempty"`

	written time.Time
	lacks   error // why the registry could not be asked for its schema
}

// Tail says which records to show.
type Tail struct {
	Topics []string // none: all topics that events are published to
	From   Moment
	Follow bool // go on behind the end
	Key    string
	Type   string // the full name, or its last part
	Unmask bool   // show personal data
	// Wait is how long brokers and topics that are not there yet are waited for, and NotYet, if
	// that is not 0, hears what is missing.
	Wait   time.Duration
	NotYet func(error)
	// Away, if set, hears with Follow that no broker answers, and with nil that one does again.
	// It may be called at any time.
	Away func(error)
}

// Moment is a place in all partitions of a topic: a time, the beginning, or the end.
type Moment struct {
	Time time.Time // zero: the beginning
	End  bool
}

// mergeMost is how many records are held to put them in the order of their time.
const mergeMost = 10_000

// Tail shows records. Without Follow they come in the order of their timestamps, as far as
// partitions leave a choice, otherwise as they arrive. The error of records that cannot be
// read does not end it.
func (c *Console) Tail(ctx context.Context, t Tail) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var reader *kafka.Reader
		var from, until kafka.Positions
		err := persist(ctx, time.Now().Add(t.Wait), t.NotYet, func() (err error) {
			reader, from, until, err = c.span(ctx, t)
			return err
		})
		if err != nil && !yield(Record{}, err) || from == nil {
			return
		}
		show, err := c.decoder()
		if err != nil {
			yield(Record{}, err)
			return
		}
		if t.Follow && t.Away != nil {
			defer c.watch(ctx, reader, from, t.Away)()
		}
		var m merge
		for raw, err := range reader.Records(ctx, from, until) {
			if err != nil {
				if !yield(Record{}, unreadable(err)) {
					return
				}
				continue
			}
			if t.Key != "" && string(event.ParseKey(t.Key)) != string(raw.Key) {
				continue
			}
			r := show.decode(ctx, &raw, !t.Unmask)
			switch {
			case !matches(r.Type, t.Type):
				continue
			case t.Follow:
				if !yield(r, nil) {
					return
				}
			default:
				if m.add(r); m.held == mergeMost && !m.flush(yield) {
					return
				}
			}
		}
		m.flush(yield)
	}
}

// watch tells away when no broker answers any more, and nil when one does again, until what it
// returns is called.
func (c *Console) watch(ctx context.Context, reader *kafka.Reader, of kafka.Positions, away func(error)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	topics := slices.Collect(maps.Keys(of))
	var watching sync.WaitGroup
	watching.Go(func() {
		told := false
		every := time.NewTicker(c.timing.brokers)
		defer every.Stop()
		for {
			select {
			case <-every.C:
			case <-ctx.Done():
				return
			}
			bounded, cancel := context.WithTimeout(ctx, c.timing.brokers)
			_, err := reader.Ends(bounded, topics...)
			cancel()
			if gone := err != nil && !errors.Is(err, kafka.ErrNoTopic); gone != told && ctx.Err() == nil {
				if told = gone; gone {
					away(fail("no broker answers at %s (from %s), trying again", c.place.environ["KAFKA_BROKERS"], c.place.from["KAFKA_BROKERS"]))
				} else {
					away(nil)
				}
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

func unreadable(err error) error {
	var p *kafka.PartitionError
	switch {
	case errors.As(err, &p) && p.To >= 0:
		return leftOut(p.Topic, p.Partition, p.From, p.To, p.Err.Error())
	case errors.As(err, &p):
		return brokersFailed("", err, "console lag --behind")
	}
	return err
}

// matches reports whether a type is the one wanted, by its full name or its last part.
func matches(full, wanted string) bool {
	return wanted == "" || full == wanted || len(full) > len(wanted) && full[len(full)-len(wanted)-1:] == "."+wanted
}

// span is what a tail reads. An error beside positions names topics that are missing.
func (c *Console) span(ctx context.Context, t Tail) (reader *kafka.Reader, from, until kafka.Positions, err error) {
	if reader, err = c.kafka(ctx); err != nil {
		return nil, nil, nil, err
	}
	topics := t.Topics
	if len(topics) == 0 {
		topics = eventTopics()
	}
	if until, err = reader.Ends(ctx, topics...); err != nil && !errors.Is(err, kafka.ErrNoTopic) {
		return nil, nil, nil, brokersFailed("", err, "")
	}
	var errs []error
	for _, topic := range topics {
		if until[topic] == nil {
			errs = append(errs, missing(topic))
		}
	}
	topics = slices.Collect(maps.Keys(until))
	switch {
	case len(topics) == 0:
		return nil, nil, nil, errors.Join(errs...)
	case t.From.End:
		from = until
	case t.From.Time.IsZero():
		from, err = reader.Starts(ctx, topics...)
	default:
		from, err = reader.Since(ctx, t.From.Time, topics...)
	}
	if err != nil && from == nil {
		return nil, nil, nil, brokersFailed("", err, "")
	}
	if t.Follow {
		until = nil
	}
	return reader, from, until, errors.Join(errs...)
}

// missing says of a topic that is not there what to do about it.
func missing(topic string) error {
	var ours []string
	for _, t := range schemas.Topics() {
		ours = append(ours, t.Name)
	}
	if slices.Contains(ours, topic) {
		return fail("topic %s does not exist", topic).then("console provision")
	}
	return wrong("there is no topic %q; there are %s", safe(topic, 100), strings.Join(ours, ", "))
}

// eventTopics are the topics that events are published to.
func eventTopics() (topics []string) {
	seen := map[string]bool{}
	for _, p := range payloads() {
		if !seen[p.Topic()] {
			seen[p.Topic()] = true
			topics = append(topics, p.Topic())
		}
	}
	return topics
}

// payloads are all events: their fields of personal data are masked in whatever is shown.
func payloads() []event.Payload {
	return []event.Payload{
		schemas.OrderPlaced{}, schemas.OrderConfirmed{}, schemas.OrderRejected{}, schemas.OrderCancelled{},
		schemas.StockReserved{}, schemas.StockRejected{}, schemas.StockReleased{}, schemas.EmailSent{},
	}
}

type decoder struct{ codec *codec.Codec }

func (c *Console) decoder() (*decoder, error) {
	cfg, err := c.place.registry()
	if err != nil {
		return nil, err
	}
	made, err := codec.New(cfg, payloads()...)
	return &decoder{made}, err
}

func (d *decoder) decode(ctx context.Context, raw *event.Record, mask bool) Record {
	typ, err := d.codec.Type(ctx, raw.Value)
	if err != nil {
		typ = strings.ToValidUTF8(string(raw.Header(event.HeaderType)), "\uFFFD")
	}
	meta := event.ReadMeta(raw, typ)
	r := Record{
		Topic: raw.Topic, Partition: raw.Partition, Offset: raw.Offset, Time: meta.Time, Key: event.KeyText(raw.Key), Type: typ,
		EventID: meta.ID, Source: meta.Source, Version: meta.Version, Headers: map[string]string{}, written: raw.Timestamp,
	}
	if sc := event.SpanContext(raw.Headers); sc.IsValid() {
		r.TraceID = sc.TraceID().String()
	}
	for _, h := range raw.Headers {
		r.Headers[h.Key] = string(h.Value)
	}
	if err == nil {
		r.Event, err = d.codec.JSON(ctx, raw.Value, mask)
	}
	switch {
	case errors.Is(err, codec.ErrUnavailable): // its words are those of the schema that was asked for first
		r.Event, r.lacks, r.Undecoded = nil, err, fmt.Sprintf("schema %d: %v", binary.BigEndian.Uint32(raw.Value[1:]), codec.ErrUnavailable)
	case err != nil:
		r.Event, r.Undecoded = nil, err.Error()
	}
	return r
}

// merge puts records of several partitions into the order of their timestamps, and keeps the
// order within each.
type merge struct {
	queues [][]Record
	of     map[string]int // by topic and partition
	held   int
}

func (m *merge) add(r Record) {
	if m.of == nil {
		m.of = map[string]int{}
	}
	name := position(r.Topic, r.Partition, 0)
	i, known := m.of[name]
	if !known {
		i = len(m.queues)
		m.of[name] = i
		m.queues = append(m.queues, nil)
	}
	m.queues[i] = append(m.queues[i], r)
	m.held++
}

func (m *merge) flush(yield func(Record, error) bool) bool {
	for ; m.held > 0; m.held-- {
		first := -1
		for i, q := range m.queues {
			if len(q) > 0 && (first < 0 || q[0].written.Before(m.queues[first][0].written)) {
				first = i
			}
		}
		r := m.queues[first][0]
		m.queues[first] = m.queues[first][1:]
		if !yield(r, nil) {
			return false
		}
	}
	return true
}
