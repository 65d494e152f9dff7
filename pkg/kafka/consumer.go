package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/event"
)

// Bounds of a consumer. A session that times out costs a crash its partitions for that long;
// a static member's has to outlast its restart. Rebalancing waits for the slowest member, and
// one that takes longer than rebalanceTimeout is dropped from the group, so that what a revoke
// may take (handTimeout for the batch in hand, commitTimeout for its offset) stays well below.
const (
	sessionTimeout       = 10 * time.Second
	staticSessionTimeout = 45 * time.Second
	heartbeatEvery       = 3 * time.Second
	rebalanceTimeout     = 30 * time.Second
	handTimeout          = 10 * time.Second
	commitTimeout        = 5 * time.Second
	leaveTimeout         = 5 * time.Second

	pollRecords   = 2000     // handed to the partitions at once
	fetchBytes    = 4 << 20  // one fetch of one broker, as compressed
	partitionMax  = 1 << 20  // of it one partition's
	inflatedBytes = 16 << 20 // one record batch, decompressed
	responseBytes = 32 << 20 // one answer of a broker
	// A partition that is resumed is fetched with the next request, which is sent when the
	// one under way has been answered: for idle partitions, after fetchWait.
	fetchWait = 250 * time.Millisecond
)

// Processor does a service's work on the records of one partition after the other.
type Processor interface {
	// Process handles b. nil says that every record of b is done or waits durably, so that
	// its offset may be committed. An error says that nothing of b counts: the same batch is
	// handed over again after a backoff, and the partition waits. A panic is an error.
	//
	// Batches of one partition come one at a time and in order, those of different
	// partitions concurrently. ctx outlives a stop by a bound in which Process may finish;
	// Process must return when ctx ends, because its partition is not given up before.
	Process(ctx context.Context, b event.Batch) error
}

// Consumer is a member of a consumer group. Its methods may be called concurrently.
type Consumer struct {
	cfg       Config
	opts      []kgo.Opt
	topics    []string
	processor Processor
	metrics   *consumerMetrics
	timing    timing

	client atomic.Pointer[kgo.Client]
	joined atomic.Bool
	taking context.Context // ends when Run's does: no further batch is begun
	work   context.Context // given to Process: Run's, without its end
	tasks  sync.WaitGroup  // what Run waits for

	mu         sync.Mutex
	partitions map[topicPartition]*partition // those that the group has assigned to us

	// commitMu is held while a commit is under way, and while partitions leave the map: a
	// commit that began before a revoke has ended before it returns, and one that begins
	// after it does not find the partition.
	commitMu sync.Mutex
	commits  chan struct{} // holds one: there is something to commit
}

type topicPartition struct {
	topic string
	id    int32
}

// timing is what tests shorten.
type timing struct {
	hand, commit, watch    time.Duration
	minBackoff, maxBackoff time.Duration
}

// NewConsumer returns a consumer of topics, which need not exist yet. It does not connect:
// Run does. An error names the variable at fault.
func NewConsumer(cfg Config, topics []string, p Processor) (*Consumer, error) {
	cfg = cfg.withDefaults()
	if cfg.Group == "" {
		return nil, errors.New("KAFKA_GROUP is missing: a consumer needs the name of its group")
	}
	if len(topics) == 0 || slices.Contains(topics, "") {
		return nil, fmt.Errorf("consumer of group %s: topics %q: want at least one, none empty", cfg.Group, topics)
	}
	c := &Consumer{
		cfg:        cfg,
		topics:     slices.Clone(topics),
		processor:  p,
		partitions: map[topicPartition]*partition{},
		commits:    make(chan struct{}, 1),
		timing: timing{
			hand: handTimeout, commit: commitTimeout, watch: watchEvery,
			minBackoff: 100 * time.Millisecond, maxBackoff: 30 * time.Second,
		},
	}
	var err error
	if c.metrics, err = newConsumerMetrics(cfg.Meter, cfg.Group); err != nil {
		return nil, err
	}
	if c.opts, err = cfg.clientOpts(c.groupOpts()...); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Consumer) groupOpts() []kgo.Opt {
	session := sessionTimeout
	if c.cfg.InstanceID != "" {
		session = staticSessionTimeout
	}
	opts := []kgo.Opt{
		kgo.ConsumerGroup(c.cfg.Group),
		kgo.ConsumeTopics(c.topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(heartbeatEvery),
		kgo.RebalanceTimeout(rebalanceTimeout),
		// What was polled reaches the partitions before any of them can be revoked. Else a
		// partition that leaves and returns in between would be handed old records, and its
		// first commit would skip those that lie before them.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(c.assigned),
		kgo.OnOffsetsFetched(c.offsetsFetched),
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost),
		// A group without a commit starts at the beginning. One whose commit has
		// disappeared does not: it stops, see loss.go.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(partitionMax),
		kgo.MaxDecompressBatchBytes(inflatedBytes),
		kgo.BrokerMaxReadBytes(responseBytes),
	}
	if c.cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.cfg.InstanceID))
	}
	return opts
}

// Run joins the group and processes until ctx ends. Then it finishes the batches in hand,
// commits, leaves the group (not as a static member) and closes; that is bounded by about
// 20 s. While the brokers cannot be reached, or topics are missing, it keeps trying. When it
// returns, nothing of it runs any more; an error says what was done, but not committed.
// Run must be called once.
func (c *Consumer) Run(ctx context.Context) error {
	c.taking, c.work = ctx, context.WithoutCancel(ctx)
	cl, err := kgo.NewClient(c.opts...)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	c.client.Store(cl)
	stopMetrics, err := c.observeLag()
	if err != nil {
		cl.Close()
		return err
	}
	background, cancel := context.WithCancel(c.work)
	c.tasks.Go(func() { c.commitLoop(background, cl) })
	c.tasks.Go(func() { c.watch(background, cl) })

	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, pollRecords)
		c.dispatch(cl, fetches)
		cl.AllowRebalance()
	}

	err = c.giveUp(cl, c.owned())
	c.leave(cl)
	cancel()
	c.tasks.Wait()
	return errors.Join(err, stopMetrics())
}

// Joined reports whether the group has been joined since the start. It stays true.
func (c *Consumer) Joined() bool { return c.joined.Load() }

// Ping asks any broker for an answer; an error says that none gave one before ctx ended, or
// that Run has not begun.
func (c *Consumer) Ping(ctx context.Context) error {
	cl := c.client.Load()
	if cl == nil {
		return errors.New("kafka consumer is not running")
	}
	return cl.Ping(ctx)
}

// leave leaves the group and closes the client. Partitions that were assigned since the last
// revoke are given up by its callback.
func (c *Consumer) leave(cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(c.work, leaveTimeout)
	defer cancel()
	if err := cl.LeaveGroupContext(ctx); err != nil {
		c.cfg.Log.Warn("leaving the group failed", "group", c.cfg.Group, "error", err)
	}
	cl.Close()
}

// dispatch hands what was polled to the partitions, without blocking. Errors come first: what
// arrives in one poll with a loss may lie behind the lost records.
func (c *Consumer) dispatch(cl *kgo.Client, fetches kgo.Fetches) {
	fetches.EachError(func(topic string, id int32, err error) { c.fetchFailed(cl, topic, id, err) })
	fetches.EachTopic(func(t kgo.FetchTopic) {
		for i := range t.Partitions {
			fp := &t.Partitions[i]
			p := c.partition(t.Topic, fp.Partition)
			if p == nil || len(fp.Records) == 0 {
				continue
			}
			if err := p.push(t.TopicID, fp); err != nil {
				c.fetchFailed(cl, t.Topic, fp.Partition, err)
			}
		}
	})
}

// assigned starts a worker for each new partition, before its first record is fetched.
func (c *Consumer) assigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	c.joined.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ids := range added {
		for _, id := range ids {
			p := newPartition(c, cl, topic, id)
			c.partitions[topicPartition{topic, id}] = p
			c.tasks.Go(p.run)
		}
		c.logger(topic).Info("partitions assigned", "partitions", ids)
	}
}

// offsetsFetched notes where the new partitions begin.
func (c *Consumer) offsetsFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, o := range t.Partitions {
				if p := c.partition(t.Topic, o.Partition); p != nil && o.ErrorCode == 0 && o.Offset >= 0 {
					p.startAt(o.Offset)
				}
			}
		}
	}
	return nil
}

// revoked gives up partitions that move to another member, who reads from what is committed
// here: it returns when their workers have stopped and their offsets are committed.
func (c *Consumer) revoked(_ context.Context, cl *kgo.Client, gone map[string][]int32) {
	leaving := c.find(gone)
	if len(leaving) == 0 {
		return // the end of a session in which nothing moves
	}
	if err := c.giveUp(cl, leaving); err != nil {
		c.cfg.Log.Error("commit before a revoke failed, records will be read again", "group", c.cfg.Group, "error", err)
	}
	for topic, ids := range gone {
		c.logger(topic).Info("partitions revoked", "partitions", ids)
	}
}

// lost drops partitions that the group has taken away without asking: somebody else may be
// working on them already, so nothing is finished and nothing is committed.
func (c *Consumer) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	leaving := c.find(gone)
	c.forget(leaving)
	for _, p := range leaving {
		p.finish()
		p.cancel()
	}
	c.stop(leaving)
	c.commitMu.Lock() // a commit that began before has ended, too
	defer c.commitMu.Unlock()
	for topic, ids := range gone {
		c.logger(topic).Warn("partitions lost", "partitions", ids)
	}
}

// giveUp finishes the batches that are in hand, commits, and forgets the partitions.
func (c *Consumer) giveUp(cl *kgo.Client, leaving []*partition) error {
	c.stop(leaving)
	ctx, cancel := context.WithTimeout(c.work, c.timing.commit)
	defer cancel()
	err := c.commitWithRetry(ctx, cl)
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	c.forget(leaving)
	return err
}

// stop returns when no worker of leaving runs any more. A batch in hand may be finished until
// the bound; then its context is cancelled. A Process that does not heed even that is waited
// for, whatever it costs: its partition could come back to us, and two batches of it would
// run at once.
func (c *Consumer) stop(leaving []*partition) {
	late := time.AfterFunc(c.timing.hand, func() {
		c.cfg.Log.Warn("batches in hand take too long, cancelling them", "group", c.cfg.Group)
		for _, p := range leaving {
			p.cancel()
		}
	})
	defer late.Stop()
	for _, p := range leaving {
		p.finish()
	}
	for _, p := range leaving {
		<-p.idle
		p.release()
	}
}

// forget removes the partitions from the map: no commit that begins afterwards has them.
func (c *Consumer) forget(leaving []*partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range leaving {
		delete(c.partitions, topicPartition{p.topic, p.id})
	}
}

// partition returns nil for one that is not ours.
func (c *Consumer) partition(topic string, id int32) *partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[topicPartition{topic, id}]
}

func (c *Consumer) find(m map[string][]int32) (found []*partition) {
	for topic, ids := range m {
		for _, id := range ids {
			if p := c.partition(topic, id); p != nil {
				found = append(found, p)
			}
		}
	}
	return found
}

func (c *Consumer) owned() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*partition, 0, len(c.partitions))
	for _, p := range c.partitions {
		all = append(all, p)
	}
	return all
}

func (c *Consumer) logger(topic string) *slog.Logger {
	return c.cfg.Log.With("group", c.cfg.Group, "topic", topic)
}
