package embedded_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestKafka(t *testing.T) {
	t.Parallel()
	t.Run("a kept folder keeps records, offsets, topic IDs and the cluster's ID", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		first := startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{orders}})
		produce(t, first, 10)
		commit(t, first, 7)
		want := describe(t, first)
		mustClose(t, first)

		second := startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{orders, emails}})
		got := describe(t, second)
		delete(got.topics, emails.Name)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{})); diff != "" {
			t.Errorf("after the restart (-before +after):\n%s", diff)
		}
		if got := consume(t, second, 10); got[9] != "value 9" {
			t.Errorf("last of ten records is %q, want %q", got[9], "value 9")
		}
	})
	t.Run("topics carry their retention, and a kept one gets the new", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		mustClose(t, startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{orders}}))

		longer := orders
		longer.Retention = 2 * orders.Retention
		k := startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{longer}})
		got := configs(t, k)
		if got["retention.ms"] != "7200000" || got["retention.bytes"] != "268435456" {
			t.Errorf("retention of %s is %s ms and %s bytes, want 7200000 and 268435456",
				orders.Name, got["retention.ms"], got["retention.bytes"])
		}
	})
	t.Run("a changed partition count is refused, and the folder is free again", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		mustClose(t, startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{orders}}))

		fewer := orders
		fewer.Partitions = 2
		_, err := embedded.StartKafka(embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{fewer}})
		wantError(t, err, "orders", "3 partitions, not 2")
		mustClose(t, startKafka(t, embedded.KafkaConfig{Dir: dir}))
	})
	t.Run("a folder in use is refused", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		startKafka(t, embedded.KafkaConfig{Dir: dir})
		_, err := embedded.StartKafka(embedded.KafkaConfig{Dir: dir})
		wantError(t, err, dir, "stop the process that uses it")
	})
	t.Run("a damaged identity is refused", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		mustClose(t, startKafka(t, embedded.KafkaConfig{Dir: dir}))
		writeFile(t, filepath.Join(dir, "keyline.json"), `{"kind":`)
		_, err := embedded.StartKafka(embedded.KafkaConfig{Dir: dir})
		wantError(t, err, "keyline.json is damaged")
	})
	t.Run("a taken port is an error that names it", func(t *testing.T) {
		t.Parallel()
		k := startKafka(t, embedded.KafkaConfig{})
		var port int
		if _, err := fmt.Sscanf(k.Addr(), "127.0.0.1:%d", &port); err != nil {
			t.Fatalf("address %q: %v", k.Addr(), err)
		}
		_, err := embedded.StartKafka(embedded.KafkaConfig{Port: port})
		wantError(t, err, k.Addr())
	})
	t.Run("closing again returns the same", func(t *testing.T) {
		t.Parallel()
		k := startKafka(t, embedded.KafkaConfig{})
		mustClose(t, k)
		mustClose(t, k)
	})
}

func TestKafka_temporaryFolder(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	k := startKafka(t, embedded.KafkaConfig{Topics: []embedded.Topic{orders}})
	produce(t, k, 1)
	if got := list(t, tmp); len(got) != 1 {
		t.Errorf("running: temporary folder holds %v, want one folder", got)
	}
	mustClose(t, k)
	if got := list(t, tmp); len(got) != 0 {
		t.Errorf("closed: temporary folder holds %v, want nothing", got)
	}
}

func TestKafka_saveFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := startKafka(t, embedded.KafkaConfig{Dir: dir, Topics: []embedded.Topic{orders}})
	// A folder where a file must go fails the save for root too.
	topics := filepath.Join(dir, "log", "topics.json")
	if err := os.Remove(topics); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(topics, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantError(t, k.Close(), "embedded kafka", "topics.json")
}

var (
	orders = embedded.Topic{Name: "orders", Partitions: 3, Retention: time.Hour}
	emails = embedded.Topic{Name: "emails", Partitions: 1}
)

// state is what must be the same after a restart.
type state struct {
	cluster   string
	topics    map[string]kadm.TopicID
	committed int64
}

func describe(t *testing.T, k *embedded.Kafka) state {
	t.Helper()
	admin := kadm.NewClient(client(t, k))
	meta, err := admin.Metadata(t.Context())
	if err != nil {
		t.Fatalf("metadata: %v", err)
	}
	if meta.Cluster != k.ClusterID() {
		t.Errorf("metadata says cluster %q, ClusterID says %q", meta.Cluster, k.ClusterID())
	}
	s := state{cluster: meta.Cluster, topics: make(map[string]kadm.TopicID)}
	for name, topic := range meta.Topics {
		s.topics[name] = topic.ID
	}
	offsets, err := admin.FetchOffsets(t.Context(), "email")
	if err != nil {
		t.Fatalf("fetch offsets: %v", err)
	}
	if o, ok := offsets.Lookup(orders.Name, 0); ok {
		s.committed = o.At
	}
	return s
}

func commit(t *testing.T, k *embedded.Kafka, at int64) {
	t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(orders.Name, 0, at, -1)
	if err := kadm.NewClient(client(t, k)).CommitAllOffsets(t.Context(), "email", offsets); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func configs(t *testing.T, k *embedded.Kafka) map[string]string {
	t.Helper()
	answers, err := kadm.NewClient(client(t, k)).DescribeTopicConfigs(t.Context(), orders.Name)
	if err != nil {
		t.Fatalf("describe configs: %v", err)
	}
	got := make(map[string]string)
	for _, c := range answers[0].Configs {
		got[c.Key] = c.MaybeValue()
	}
	return got
}

func produce(t *testing.T, k *embedded.Kafka, n int) {
	t.Helper()
	c := client(t, k)
	for i := range n {
		r := &kgo.Record{Topic: orders.Name, Key: []byte("one key"), Value: fmt.Appendf(nil, "value %d", i)}
		if err := c.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatalf("produce record %d: %v", i, err)
		}
	}
}

func consume(t *testing.T, k *embedded.Kafka, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := client(t, k, kgo.ConsumeTopics(orders.Name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var values []string
	for len(values) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("consume: %d of %d records, then %v", len(values), n, err)
		}
		for _, r := range fetches.Records() {
			values = append(values, string(r.Value))
		}
	}
	return values
}

func startKafka(t *testing.T, cfg embedded.KafkaConfig) *embedded.Kafka {
	t.Helper()
	k, err := embedded.StartKafka(cfg)
	if err != nil {
		t.Fatalf("StartKafka: %v", err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func mustClose(t *testing.T, k *embedded.Kafka) {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func client(t *testing.T, k *embedded.Kafka, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(k.Addr()), kgo.DisableClientMetrics())...)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want it to say %q", err, part)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}
