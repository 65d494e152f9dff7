package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	partitionBytes = 256 << 20 // retention.bytes: the oldest records go when a partition is larger
	retentionEvery = time.Minute
	startTimeout   = 30 * time.Second
)

// Topic is a topic that the broker starts with. Retention 0 keeps records for seven days.
type Topic struct {
	Name       string
	Partitions int32
	Retention  time.Duration
}

// KafkaConfig says where the embedded broker keeps its records and where it listens.
type KafkaConfig struct {
	// Dir is the folder of the log, kept for the next start. Empty: a temporary one, removed
	// by Close. One process at a time can use it.
	Dir string
	// Port on 127.0.0.1; 0 is a free one.
	Port int
	// Topics that exist after the start. Those that a kept Dir has already keep their records
	// and IDs; only their retention is set anew.
	Topics []Topic
	// Log tells of refused connections and failing writes; nil discards.
	Log *slog.Logger
}

// Kafka is a running broker of one node. Its methods are safe for concurrent use.
type Kafka struct {
	cluster *kfake.Cluster
	folder  *folder
	log     *clusterLog
	close   func() error
}

// StartKafka starts a broker and returns once it serves all topics, or an error that leaves
// nothing running. It refuses a topic whose partition count differs from the kept one.
func StartKafka(cfg KafkaConfig) (*Kafka, error) {
	dir, remove, err := kafkaDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	k := &Kafka{log: &clusterLog{to: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))}}
	if k.folder, err = openFolder(dir, "kafka"); err != nil {
		return nil, errors.Join(err, remove())
	}
	if k.cluster, err = newCluster(cfg.Port, k.folder, k.log); err != nil {
		err = fmt.Errorf("start the embedded kafka: %w", err)
		return nil, errors.Join(err, k.folder.close(), remove())
	}
	k.close = sync.OnceValue(func() error {
		k.cluster.Close()
		return errors.Join(k.log.err(), k.folder.close(), remove())
	})
	if err := k.createTopics(cfg.Topics); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Addr is the broker's host and port.
func (k *Kafka) Addr() string { return k.cluster.ListenAddrs()[0] }

// ClusterID is the same for as long as Dir is kept, and no other broker has it.
func (k *Kafka) ClusterID() string { return k.folder.id }

// Cluster is the broker itself, for the fault hooks that tests use.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Close saves the broker's state, stops it and releases Dir. The error tells what could not be
// saved. Closing again returns the same.
func (k *Kafka) Close() error { return k.close() }

// kafkaDir returns the folder to use, and how to remove it if it is a temporary one.
func kafkaDir(dir string) (string, func() error, error) {
	if dir != "" {
		return dir, func() error { return nil }, nil
	}
	// Never in memory: there kfake frees nothing, while its files cost it a few bytes a batch.
	dir, err := os.MkdirTemp("", "keyline-kafka-")
	if err != nil {
		return "", nil, fmt.Errorf("create a temporary folder for the embedded kafka: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

func newCluster(port int, f *folder, log *clusterLog) (*kfake.Cluster, error) {
	versions := kversion.Stable()
	// Java's tools fail on kfake's answer to this request, and do without it where it is not
	// offered.
	versions.SetMaxKeyVersion(int16(kmsg.DescribeTopicPartitions), -1)
	cluster, err := kfake.NewCluster(
		kfake.MaxVersions(versions),
		kfake.Ports(port),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			ln, err := listen(network, address)
			if err != nil {
				return nil, err
			}
			return guard{loopback: ln, log: log.to}, nil
		}),
		kfake.ClusterID(f.id),
		kfake.DataDir(filepath.Join(f.path, "log")),
		kfake.WithLogger(log),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms": strconv.FormatInt(retentionEvery.Milliseconds(), 10),
		}),
	)
	if err != nil {
		return nil, err
	}
	cluster.ControlKey(int16(kmsg.ListGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if list, ok := req.(*kmsg.ListGroupsRequest); ok {
			for i, t := range list.TypesFilter { // Java's tools write Classic, kfake compares with classic
				list.TypesFilter[i] = strings.ToLower(t)
			}
		}
		return nil, nil, false
	})
	return cluster, nil
}

func (k *Kafka) createTopics(topics []Topic) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()), kgo.DisableClientMetrics())
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	existing, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for _, t := range topics {
		if err := createTopic(ctx, admin, existing, t); err != nil {
			return fmt.Errorf("create topic %s: %w", t.Name, err)
		}
	}
	return nil
}

// createTopic sets retention on the topic itself and at every start, because only that starts
// kfake's retention.
func createTopic(ctx context.Context, admin *kadm.Client, existing kadm.TopicDetails, t Topic) error {
	retention := strconv.FormatInt(cmp.Or(t.Retention, 7*24*time.Hour).Milliseconds(), 10)
	size := strconv.Itoa(partitionBytes)
	if !existing.Has(t.Name) {
		_, err := admin.CreateTopic(ctx, t.Partitions, 1, map[string]*string{
			"retention.ms": &retention, "retention.bytes": &size,
		}, t.Name)
		return err
	}
	if kept := int32(len(existing[t.Name].Partitions)); kept != t.Partitions {
		return fmt.Errorf("it has %d partitions, not %d: a live topic's count never changes", kept, t.Partitions)
	}
	answers, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Name: "retention.ms", Value: &retention}, {Name: "retention.bytes", Value: &size},
	}, t.Name)
	if err != nil {
		return err
	}
	answer, err := answers.On(t.Name, nil)
	return errors.Join(err, answer.Err)
}

// clusterLog turns kfake's warnings and errors into slog's, and keeps the last error for Close:
// kfake reports a failed save there only.
type clusterLog struct {
	to *slog.Logger

	mu   sync.Mutex
	last error
}

// Logf implements kfake.Logger.
func (l *clusterLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn {
		return
	}
	err := fmt.Errorf("embedded kafka: "+format, args...)
	l.to.Warn("embedded kafka", "error", err)
	if level == kfake.LogLevelError {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.last = err
	}
}

func (l *clusterLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
