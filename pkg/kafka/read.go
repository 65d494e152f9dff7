package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
)

// Positions are offsets by topic and partition.
type Positions map[string]map[int32]int64

func (p Positions) set(topic string, id int32, offset int64) {
	if p[topic] == nil {
		p[topic] = map[int32]int64{}
	}
	p[topic][id] = offset
}

// Reader looks at topics and groups from outside: it joins nothing and commits nothing, so
// that nobody notices. For operators and tools; a service consumes with a [Consumer]. Its
// methods may be called concurrently.
type Reader struct {
	cfg    Config
	client *kgo.Client
	admin  *kadm.Client
}

// ErrNoTopic is in the error if a topic that was asked for does not exist. What is known of
// the others stands beside it.
var ErrNoTopic = errors.New("topic does not exist")

// Forbidden reports whether the brokers have refused what this login is not allowed.
func Forbidden(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed)
}

// NewReader connects. An error names the variable at fault, or says that no broker has
// answered before ctx ended.
func NewReader(ctx context.Context, cfg Config) (*Reader, error) {
	cfg = cfg.withDefaults()
	opts, err := cfg.clientOpts(kgo.MetadataMinAge(10 * time.Millisecond))
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("no broker answers at %v: %w", cfg.Brokers, err)
	}
	return &Reader{cfg: cfg, client: cl, admin: kadm.NewClient(cl)}, nil
}

// Close ends the connections.
func (r *Reader) Close() { r.client.Close() }

// Starts are the offsets of the first records that the brokers still hold.
func (r *Reader) Starts(ctx context.Context, topics ...string) (Positions, error) {
	listed, err := r.admin.ListStartOffsets(ctx, topics...)
	return positions(listed, err, topics)
}

// Ends are the offsets behind the last records; what a transaction has not committed yet lies
// behind the end.
func (r *Reader) Ends(ctx context.Context, topics ...string) (Positions, error) {
	listed, err := r.admin.ListCommittedOffsets(ctx, topics...)
	return positions(listed, err, topics)
}

// Since are the offsets of the first records with a timestamp of t or later, the end where
// there is none. Timestamps are the producers'.
func (r *Reader) Since(ctx context.Context, t time.Time, topics ...string) (Positions, error) {
	listed, err := r.admin.ListOffsetsAfterMilli(ctx, t.UnixMilli(), topics...)
	return positions(listed, err, topics)
}

func positions(listed kadm.ListedOffsets, err error, topics []string) (Positions, error) {
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	all := Positions{}
	var missing []error
	for _, topic := range topics {
		gone := len(listed[topic]) == 0
		for id, o := range listed[topic] {
			switch {
			case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
				gone = true
			case o.Err != nil:
				return nil, fmt.Errorf("list offsets of %s/%d: %w", topic, id, o.Err)
			default:
				all.set(topic, id, o.Offset)
			}
		}
		if gone {
			delete(all, topic)
			missing = append(missing, fmt.Errorf("%w: %s", ErrNoTopic, topic))
		}
	}
	return all, errors.Join(missing...)
}

// PartitionError says that a partition cannot be read any further, or not from one offset up
// to another.
type PartitionError struct {
	Topic     string
	Partition int32
	From      int64 // the first offset that cannot be read
	To        int64 // reading goes on there; -1 if it does not
	Err       error
}

func (e *PartitionError) Error() string {
	if e.To < 0 {
		return fmt.Sprintf("read %s/%d from offset %d: %v", e.Topic, e.Partition, e.From, e.Err)
	}
	return fmt.Sprintf("read %s/%d, offsets %d to %d: %v", e.Topic, e.Partition, e.From, e.To-1, e.Err)
}

func (e *PartitionError) Unwrap() error { return e.Err }

// Records reads the partitions of from, each from its position and in its order, up to
// until, which Ends may have told. Partitions that until does not name are read on and on. It
// ends when all have been read that far, or with ctx's error. A [PartitionError] ends its
// partition only: the others are read on; so is its own behind a batch that cannot be
// decompressed within the limit.
func (r *Reader) Records(ctx context.Context, from, until Positions) iter.Seq2[event.Record, error] {
	return func(yield func(event.Record, error) bool) {
		err := r.scan(ctx, from, until, func(f *fetched) verdict {
			for i, rec := range convert(f.topicID, f.records) {
				if !f.records[i].Attrs.IsControl() && !yield(rec, nil) {
					return stop
				}
			}
			if f.err == nil {
				return readOn
			}
			err := &PartitionError{f.topic, f.id, f.at, -1, f.err}
			if errors.Is(f.err, kgo.ErrMaxDecompress) {
				err.To = behindBatch(ctx, r.client, f.topic, f.id, f.at, f.err)
				if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](f.err); ok {
					err.From = max(f.at, large.Offset)
				}
			}
			if !yield(event.Record{Topic: f.topic, TopicID: f.topicID, Partition: f.id}, err) {
				return stop
			}
			if err.To > f.at {
				f.at = err.To
				return jump
			}
			return leave
		})
		if err != nil {
			yield(event.Record{}, err)
		}
	}
}

// fetched is one partition's part of a poll. Control records are in it: one of them may be
// the last before an end.
type fetched struct {
	topicPartition
	topicID [16]byte
	records []*kgo.Record
	err     error
	at      int64 // of what comes next; a visitor that jumps sets it
}

// verdict is what a visitor wants of a scan.
type verdict int

const (
	readOn verdict = iota
	jump           // to another offset
	leave          // this partition
	stop
)

// scan visits what it fetches until no partition is left.
func (r *Reader) scan(ctx context.Context, from, until Positions, visit func(*fetched) verdict) error {
	begin, left := map[string]map[int32]kgo.Offset{}, map[topicPartition]int64{}
	for topic, partitions := range from {
		for id, at := range partitions {
			if limit, bounded := until[topic][id]; bounded && at >= limit {
				continue
			}
			if begin[topic] == nil {
				begin[topic] = map[int32]kgo.Offset{}
			}
			begin[topic][id], left[topicPartition{topic, id}] = kgo.NewOffset().At(at), at
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := r.consume(begin)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(left) > 0 {
		fetches := cl.PollRecords(ctx, pollRecords)
		if err := ctx.Err(); err != nil {
			return err
		}
		for f := range parts(fetches) {
			at, wanted := left[f.topicPartition]
			if !wanted {
				continue
			}
			f.at = at
			if n := len(f.records); n > 0 {
				f.at = f.records[n-1].Offset + 1
			}
			what := f.visit(until, visit)
			left[f.topicPartition] = f.at
			switch what {
			case jump:
				cl.RemoveConsumePartitions(map[string][]int32{f.topic: {f.id}})
				cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{f.topic: {f.id: kgo.NewOffset().At(f.at)}})
			case leave:
				delete(left, f.topicPartition)
				cl.PauseFetchPartitions(map[string][]int32{f.topic: {f.id}})
			case stop:
				return nil
			}
		}
	}
	return nil
}

// parts takes a poll's answers apart.
func parts(fetches kgo.Fetches) iter.Seq[*fetched] {
	return func(yield func(*fetched) bool) {
		for _, answer := range fetches {
			for _, t := range answer.Topics {
				for _, p := range t.Partitions {
					if !yield(&fetched{topicPartition: topicPartition{t.Topic, p.Partition}, topicID: t.TopicID, records: p.Records, err: p.Err}) {
						return
					}
				}
			}
		}
	}
}

// visit shows the visitor what lies before the limit, and leaves the partition at it.
func (f *fetched) visit(until Positions, visit func(*fetched) verdict) verdict {
	limit, bounded := until[f.topic][f.id]
	reached := bounded && f.at >= limit
	for bounded && len(f.records) > 0 && f.records[len(f.records)-1].Offset >= limit {
		f.records = f.records[:len(f.records)-1]
	}
	if reached {
		f.err = nil // it concerns what lies behind
	}
	if len(f.records) == 0 && f.err == nil && !reached {
		return readOn
	}
	v := visit(f)
	if v == readOn && reached || v == jump && bounded && f.at >= limit {
		return leave
	}
	return v
}

// consume reads partitions within the same limits as a group's member.
func (r *Reader) consume(begin map[string]map[int32]kgo.Offset) (*kgo.Client, error) {
	fetch, err := fetchOpts()
	if err != nil {
		return nil, err
	}
	opts, err := r.cfg.clientOpts(append(fetch, kgo.ConsumePartitions(begin), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepControlRecords())...)
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(opts...)
}
