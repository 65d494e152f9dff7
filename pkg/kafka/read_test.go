package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/kafka"
)

func newReader(t testing.TB, addrs []string) *kafka.Reader {
	t.Helper()
	r, err := kafka.NewReader(t.Context(), kafka.Config{Brokers: addrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// must fails the test at an error of a look-up.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// values reads records to their end, and wants no error.
func values(t testing.TB, r *kafka.Reader, from, until kafka.Positions) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for rec, err := range r.Records(ctx, from, until) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(rec.Value))
	}
	return all
}

func TestReader_Records(t *testing.T) {
	t.Parallel()

	t.Run("reads all partitions from their starts to their ends, each in order", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 3)
		publish(t, addrs, numbered(topic, 0, 50, keys(8)...)...)
		r := newReader(t, addrs)
		from, until := must(r.Starts(t.Context(), topic))(t), must(r.Ends(t.Context(), topic))(t)
		publish(t, addrs, numbered(topic, 50, 1, keys(8)...)...) // behind the end that was asked for
		next := map[string]int{}
		for _, v := range values(t, r, from, until) {
			key, n := split(t, v)
			if next[key] != n {
				t.Errorf("%s comes after %s:%d", v, key, next[key]-1)
			}
			next[key]++
		}
		for _, key := range keys(8) {
			if next[key] != 50 {
				t.Errorf("%s: read %d records, want 50", key, next[key])
			}
		}
	})

	t.Run("reads from an offset, and carries what a record has", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		records := numbered(topic, 0, 5, "k")
		records[3].Headers = []event.Header{{Key: "ce_id", Value: []byte("x")}}
		publish(t, addrs, records...)
		r := newReader(t, addrs)
		var got []event.Record
		for rec, err := range r.Records(t.Context(), kafka.Positions{topic: {0: 3}}, kafka.Positions{topic: {0: 4}}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, rec)
		}
		if len(got) != 1 || got[0].Offset != 3 || string(got[0].Key) != "k" || string(got[0].Header("ce_id")) != "x" || time.Since(got[0].Timestamp) > time.Hour || got[0].TopicID == [16]byte{} {
			t.Errorf("got %+v, want the record at offset 3", got)
		}
	})

	t.Run("goes on behind the end where none is given, until it is stopped", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 2)
		r := newReader(t, addrs)
		from := must(r.Ends(t.Context(), topic))(t)
		publish(t, addrs, numbered(topic, 0, 10, "a", "b")...)
		n := 0
		bounded, over := context.WithTimeout(t.Context(), patience)
		defer over()
		for _, err := range r.Records(bounded, from, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 20 { // it has come to the end by now
				publish(t, addrs, numbered(topic, 10, 10, "a", "b")...)
			}
			if n == 40 {
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range r.Records(ctx, from, nil) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v after the end of the context, want that", err)
			}
		}
	})

	t.Run("begins at a time", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		cl := must(kgo.NewClient(kgo.SeedBrokers(addrs...)))(t)
		defer cl.Close()
		for i := range 4 {
			rec := &kgo.Record{Topic: topic, Value: fmt.Append(nil, i), Timestamp: at.Add(time.Duration(i) * time.Minute)}
			if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		r := newReader(t, addrs)
		end := must(r.Ends(t.Context(), topic))(t)
		for _, tt := range []struct {
			since time.Time
			want  []string
		}{{time.UnixMilli(0), []string{"0", "1", "2", "3"}}, {at.Add(time.Minute + 1), []string{"1", "2", "3"}}, {at.Add(3*time.Minute + time.Second), nil}} {
			if diff := cmp.Diff(tt.want, values(t, r, must(r.Since(t.Context(), tt.since, topic))(t), end)); diff != "" {
				t.Errorf("since %v (-want +got):\n%s", tt.since, diff)
			}
		}
	})

	t.Run("ends at an end that is a transaction's marker, and leaves out what was aborted", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		cl := must(kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(topic)))(t)
		defer cl.Close()
		for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Append(nil, end)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		r := newReader(t, addrs)
		eventually(t, "the markers", func() bool { return must(r.Ends(t.Context(), topic))(t)[topic][0] == 4 })
		got := values(t, r, must(r.Starts(t.Context(), topic))(t), must(r.Ends(t.Context(), topic))(t))
		if want := []string{fmt.Sprint(kgo.TryCommit)}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	t.Run("says which partition cannot be read, and reads the others", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		bad, good := newTopic(t, addrs, 1), newTopic(t, addrs, 1)
		bomb(t, addrs, bad)
		publish(t, addrs, numbered(good, 0, 10, "k")...)
		r := newReader(t, addrs)
		from, until := must(r.Starts(t.Context(), bad, good))(t), must(r.Ends(t.Context(), bad, good))(t)
		var errs []error
		n := 0
		for _, err := range r.Records(t.Context(), from, until) {
			if err != nil {
				errs = append(errs, err)
			} else {
				n++
			}
		}
		var p *kafka.PartitionError
		if len(errs) != 1 || !errors.As(errs[0], &p) || p.Topic != bad || n != 10 {
			t.Errorf("got %d records and %v, want 10 and an error of %s", n, errs, bad)
		}
	})

	t.Run("goes on behind a batch that cannot be decompressed, and says which offsets that leaves out", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		publish(t, addrs, numbered(topic, 0, 3, "k")...)
		bomb(t, addrs, topic)
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 3, 3, "k")...)
		r := newReader(t, addrs)
		until := must(r.Ends(t.Context(), topic))(t)
		publish(t, addrs, numbered(topic, 6, 1, "k")...)
		read := func(until kafka.Positions) (got []string) {
			for rec, err := range r.Records(t.Context(), must(r.Starts(t.Context(), topic))(t), until) {
				var p *kafka.PartitionError
				switch {
				case errors.As(err, &p):
					got = append(got, fmt.Sprintf("no %d-%d", p.From, p.To))
				case err != nil:
					t.Fatal(err)
				default:
					if got = append(got, string(rec.Value)); until == nil && string(rec.Value) == "k:6" {
						return got
					}
				}
			}
			return got
		}
		want := []string{"k:0", "k:1", "k:2", "no 3-4", "no 4-5", "k:3", "k:4", "k:5"}
		if got := read(until); !slices.Equal(got, want) {
			t.Errorf("up to the end: got %q, want %q", got, want)
		}
		if got := read(nil); !slices.Equal(got, append(want, "k:6")) {
			t.Errorf("on and on: got %q, want %q and k:6", got, want)
		}
		until[topic][0] = 5
		if got := read(until); !slices.Equal(got, want[:5]) {
			t.Errorf("up to its end: got %q, want %q", got, want[:5])
		}
		until[topic][0] = 3
		if got := read(until); !slices.Equal(got, want[:3]) {
			t.Errorf("up to it: got %q, want %q", got, want[:3])
		}
	})

	t.Run("an offset that the log does not hold is an error, and nothing else is read for it", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		publish(t, addrs, numbered(topic, 0, 3, "k")...)
		r := newReader(t, addrs)
		bounded, over := context.WithTimeout(t.Context(), patience)
		defer over()
		for rec, err := range r.Records(bounded, kafka.Positions{topic: {0: 99}}, nil) {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("no error comes")
			}
			if err == nil {
				t.Fatalf("read %s", rec.Value)
			}
		}
	})
}

func split(t testing.TB, value string) (key string, n int) {
	t.Helper()
	i := slices.Index([]byte(value), ':')
	if _, err := fmt.Sscan(value[i+1:], &n); err != nil {
		t.Fatal(err)
	}
	return value[:i], n
}

func TestNewReader(t *testing.T) {
	t.Parallel()

	t.Run("says at once that no broker answers", func(t *testing.T) {
		t.Parallel()
		addr, _ := eventtest.FreeAddr(t)
		if _, err := kafka.NewReader(t.Context(), kafka.Config{Brokers: []string{addr}}); err == nil {
			t.Error("no error without a broker")
		}
	})

	t.Run("names a topic that does not exist", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		r := newReader(t, addrs)
		there := newTopic(t, addrs, 1)
		ends, err := r.Ends(t.Context(), "nowhere", there)
		if !errors.Is(err, kafka.ErrNoTopic) || len(ends[there]) != 1 {
			t.Errorf("got %v, %v, want what is there beside the error", ends, err)
		}
		if lags, err := r.Lag(t.Context(), unique(t, "group"), patience, "nowhere", there); !errors.Is(err, kafka.ErrNoTopic) || len(lags) != 1 {
			t.Errorf("got %v, %v, want what is there beside the error", lags, err)
		}
		if _, err := r.Ends(t.Context(), "nowhere"); !errors.Is(err, kafka.ErrNoTopic) {
			t.Errorf("got %v, want that the topic does not exist", err)
		}
		if _, err := r.Since(t.Context(), time.Now(), "nowhere"); !errors.Is(err, kafka.ErrNoTopic) {
			t.Errorf("got %v, want that the topic does not exist", err)
		}
	})
}

func TestReader_Lag(t *testing.T) {
	t.Parallel()

	t.Run("counts what is not committed, and tells how old the first of it is", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 2), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, keys(10)...)...)
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		rec.waitFor(t, 100)
		_ = c.stop(t)
		before := time.Now()
		publish(t, addrs, numbered(topic, 10, 1, keys(10)...)...)
		lags := must(newReader(t, addrs).Lag(t.Context(), group, patience))(t)
		var records int64
		for _, l := range lags {
			records += l.Records()
			if l.Err != nil || l.Records() > 0 && (l.Oldest.Before(before.Truncate(time.Millisecond)) || l.Age(time.Now()) > time.Minute) {
				t.Errorf("%+v: want an age since %v", l, before)
			}
			if l.Group != group || l.Committed != l.End-l.Records() || l.Lost() != 0 {
				t.Errorf("%+v does not add up", l)
			}
		}
		if len(lags) != 2 || records != 10 {
			t.Errorf("got %d partitions and %d records, want 2 and 10", len(lags), records)
		}
		groups := must(newReader(t, addrs).Groups(t.Context(), topic))(t)
		if !slices.Equal(groups, []string{group}) {
			t.Errorf("groups of the topic: %q, want %q", groups, group)
		}
	})

	t.Run("a group without a commit has everything before it", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 7, "k")...)
		r := newReader(t, addrs)
		if lags := must(r.Lag(t.Context(), group, patience))(t); len(lags) != 0 {
			t.Errorf("a group that nobody knows: %+v", lags)
		}
		lags := must(r.Lag(t.Context(), group, patience, topic))(t)
		if len(lags) != 1 || lags[0].Committed != -1 || lags[0].Records() != 7 || lags[0].Oldest.IsZero() {
			t.Errorf("got %+v, want 7 records", lags)
		}
	})

	t.Run("what retention took before it was read is lost, not lagging", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t, kfake.NumBrokers(1))
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		rec.waitFor(t, 10)
		_ = c.stop(t)
		publish(t, addrs, numbered(topic, 10, 10, "k")...)
		if err := cluster.DeleteRecords(topic, 0, 17); err != nil {
			t.Fatal(err)
		}
		lags := must(newReader(t, addrs).Lag(t.Context(), group, patience))(t)
		if len(lags) != 1 || lags[0].Lost() != 7 || lags[0].Records() != 3 || lags[0].Oldest.IsZero() {
			t.Errorf("got %+v, want 7 lost and 3 to read", lags)
		}
	})

	t.Run("a batch that cannot be read hides the age, and says so", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		bomb(t, addrs, topic)
		lags := must(newReader(t, addrs).Lag(t.Context(), unique(t, "group"), patience, topic))(t)
		if len(lags) != 1 || lags[0].Records() != 1 || lags[0].Err == nil || lags[0].Age(time.Now()) != 0 {
			t.Errorf("got %+v, want an error in place of the age", lags)
		}
	})
}

func TestPlan(t *testing.T) {
	t.Parallel()
	cfg := kafka.Config{Brokers: brokers(t)}
	a, b := unique(t, "a"), unique(t, "b")
	declared := []kafka.Topic{{Name: a, Partitions: 3, Retention: 72 * time.Hour}, {Name: b, Partitions: 2}}
	wanted := func(topics []kafka.Topic, want ...kafka.Drift) {
		t.Helper()
		var got []kafka.Drift
		eventually(t, fmt.Sprintf("%+v", want), func() bool {
			got = must(kafka.Plan(t.Context(), cfg, topics))(t)
			for i := range got {
				if got[i].Stuck != "" {
					got[i].Stuck = "stuck"
				}
			}
			return slices.Equal(got, want)
		})
	}
	wanted(declared,
		kafka.Drift{Topic: a, What: "topic", Have: "missing", Want: "3 partitions, kept for 72h0m0s"},
		kafka.Drift{Topic: b, What: "topic", Have: "missing", Want: "2 partitions"})
	wanted(declared[:1], kafka.Drift{Topic: a, What: "topic", Have: "missing", Want: "3 partitions, kept for 72h0m0s"}) // it changed nothing
	if err := kafka.Provision(t.Context(), cfg, declared); err != nil {
		t.Fatal(err)
	}
	wanted(declared)
	declared[0].Retention, declared[1].Partitions = 48*time.Hour, 4
	wanted(declared,
		kafka.Drift{Topic: a, What: "retention", Have: "72h0m0s", Want: "48h0m0s"},
		kafka.Drift{Topic: b, What: "partitions", Have: "2", Want: "4", Stuck: "stuck"})
	if err := kafka.Provision(t.Context(), cfg, declared[:1]); err != nil {
		t.Fatal(err)
	}
	wanted(declared[:1])

	set(t, cfg.Brokers, a, map[string]string{"cleanup.policy": "compact", "retention.bytes": "5000", "max.message.bytes": "1000"})
	wanted(declared[:1],
		kafka.Drift{Topic: a, What: "cleanup.policy", Have: "compact", Want: "delete"},
		kafka.Drift{Topic: a, What: "retention.bytes", Have: "5000", Want: "-1"},
		kafka.Drift{Topic: a, What: "max.message.bytes", Have: "1000", Want: "1048588"})
	if err := kafka.Provision(t.Context(), cfg, declared[:1]); err != nil {
		t.Fatal(err)
	}
	wanted(declared[:1])

	t.Run("says that no broker answers", func(t *testing.T) {
		t.Parallel()
		addr, _ := eventtest.FreeAddr(t)
		if _, err := kafka.Plan(t.Context(), kafka.Config{Brokers: []string{addr}}, declared); err == nil {
			t.Error("no error without a broker")
		}
	})
}
