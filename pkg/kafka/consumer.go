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

	"example.com/keyline/pkg/event"
)

// Times of a group member. A crash costs its partitions a session's length; a static member's
// session has to outlast its restart. A rebalance waits for the slowest member, and drops one
// that takes longer than rebalanceTimeout: what a revoke may take, handTimeout for the batch
// in hand and commitTimeout for its offset, stays well below.
const (
	sessionTimeout       = 10 * time.Second
	staticSessionTimeout = 20 * time.Second
	heartbeatEvery       = 250 * time.Millisecond
	rebalanceTimeout     = 30 * time.Second
	handTimeout          = 10 * time.Second
	commitTimeout        = 5 * time.Second
	leaveTimeout         = 5 * time.Second

	// A connection is given up when it has been without an answer for so much longer than a
	// session: a commit that is stuck on it belongs to a member that is no more (commit.go). The
	// cost is that a dead broker is noticed as late: after 12 s, by a static member after 22 s.
	answerMargin = 2 * time.Second
)

// pollRecords are handed to the partitions at once.
const pollRecords = 2000

// Processor does a service's work on batches of records.
type Processor interface {
	// Process handles b. nil says that every record of b is done or waits durably, so that
	// its offset may be committed. An error says that nothing of b counts: the same batch is
	// handed over again after a backoff, and the partition waits. A panic is an error.
	//
	// Batches of one partition come one at a time and in order, those of different
	// partitions concurrently. ctx outlives a stop for as long as Process may still finish.
	// When ctx ends Process must return: until it does, its partition is not given up.
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
	rejoin chan struct{}        // holds one: the session is to end, and another one to begin
	taking context.Context      // the session's: when it ends, no further batch is begun
	work   context.Context      // for Process: Run's without its end
	tasks  sync.WaitGroup       // what Run waits for
	saidAt map[string]time.Time // when the poll loop has logged what, of late

	mu          sync.Mutex
	partitions  map[topicPartition]*partition // those that the group has assigned to us
	lostRecords map[topicPartition][2]int64   // from and up to where losses have been counted

	// commitMu is held while a commit is under way, and taken before a revoke ends: a commit
	// that began earlier has ended by then, and one that begins later does not find the
	// partition any more.
	commitMu lock
	commits  chan struct{} // holds one: there is something to commit
}

type topicPartition struct {
	topic string
	id    int32
}

// timing is what tests shorten.
type timing struct{ hand, commit, watch, open, minBackoff, maxBackoff time.Duration }

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
		cfg: cfg, topics: slices.Clone(topics), processor: p,
		partitions: map[topicPartition]*partition{}, lostRecords: map[topicPartition][2]int64{}, saidAt: map[string]time.Time{},
		commits: make(chan struct{}, 1), commitMu: make(lock, 1), rejoin: make(chan struct{}, 1),
		timing: timing{handTimeout, commitTimeout, watchEvery, openFor, 100 * time.Millisecond, 30 * time.Second},
	}
	var err error
	if c.metrics, err = newConsumerMetrics(cfg.Meter, cfg.Group); err != nil {
		return nil, err
	}
	fetch, err := fetchOpts()
	if err != nil {
		return nil, err
	}
	if c.opts, err = cfg.clientOpts(append(fetch, c.groupOpts()...)...); err != nil {
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
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(heartbeatEvery),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.RequestTimeoutOverhead(session + answerMargin),
		kgo.DisableAutoCommit(),
		// No partition is revoked between a poll and the hand-over of its records. Else one
		// that left and came back in between would be handed records of its earlier life,
		// and committing those would skip what lies before them.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(c.assigned),
		kgo.OnOffsetsFetched(c.offsetsFetched),
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost),
		// Without a commit a group starts at the beginning. When its commit has disappeared
		// from the log it does not: see loss.go.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}
	if c.cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.cfg.InstanceID))
	}
	return opts
}

// Run joins the group and processes until ctx ends. Then it finishes the batches in hand,
// commits, leaves the group (not as a static member) and closes, which takes at most about
// 20 s. While the brokers cannot be reached, or topics are missing, it keeps trying. When it
// returns, nothing of it runs any more; an error says what was done but could not be
// committed. Run must be called once.
func (c *Consumer) Run(ctx context.Context) error {
	c.work = context.WithoutCancel(ctx)
	stopMetrics, err := c.observeLag()
	if err != nil {
		return err
	}
	for ctx.Err() == nil && err == nil {
		err = c.session(ctx)
	}
	return errors.Join(err, stopMetrics())
}

// session is one membership, with a client of its own, until run ends or somebody asks for
// another one. When it returns, nothing of it runs any more.
func (c *Consumer) session(run context.Context) error {
	ctx, end := context.WithCancel(run)
	defer end()
	c.taking = ctx
	life, abandon := context.WithCancel(c.work)
	defer abandon()
	cl, err := kgo.NewClient(append(slices.Clip(c.opts), kgo.WithContext(life))...)
	if err != nil {
		return fmt.Errorf("kafka consumer: %w", err)
	}
	c.client.Store(cl)
	background, cancel := context.WithCancel(c.work)
	c.tasks.Go(func() { c.commitLoop(background, cl) })
	c.tasks.Go(func() { c.watch(background, cl) })
	c.tasks.Go(func() {
		select {
		case <-c.rejoin:
			end()
		case <-background.Done():
		}
	})

	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, pollRecords)
		c.dispatch(fetches)
		cl.AllowRebalance()
	}

	err = c.giveUp(cl, c.owned())
	if err != nil && run.Err() == nil { // what was not committed is for the next session to read
		c.cfg.Log.Error("commit before a rejoin failed, records will be read again", "group", c.cfg.Group, "error", err)
		err = nil
	}
	c.leave(cl, abandon)
	cancel()
	c.tasks.Wait()
	return err
}

// leave leaves the group and closes the client. Partitions that were assigned since the last
// revoke are given up by its callback.
func (c *Consumer) leave(cl *kgo.Client, abandon context.CancelFunc) {
	ctx, cancel := context.WithTimeout(c.work, leaveTimeout)
	defer cancel()
	if err := cl.LeaveGroupContext(ctx); err != nil {
		c.cfg.Log.Warn("leaving the group failed", "group", c.cfg.Group, "error", err)
		// A join that waits for other members would hold up Close for as long as those may take.
		abandon()
	}
	cl.Close()
	// At its end Close polls once more, and a goroutine of it that leaves the group may only
	// come afterwards: without this it would wait for ever.
	cl.AllowRebalance()
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

// dispatch hands what was polled to the partitions, without blocking. Errors come first: what
// arrives in one poll with a loss may lie behind the lost records.
func (c *Consumer) dispatch(fetches kgo.Fetches) {
	fetches.EachError(func(topic string, id int32, err error) { c.fetchFailed(topic, id, err) })
	fetches.EachTopic(func(t kgo.FetchTopic) {
		for i := range t.Partitions {
			fp := &t.Partitions[i]
			p := c.partition(t.Topic, fp.Partition)
			if p == nil || len(fp.Records) == 0 {
				continue
			}
			if err := p.push(t.TopicID, fp); err != nil {
				c.fetchFailed(t.Topic, fp.Partition, err)
			}
		}
	})
}

// partition returns nil for one that is not ours.
func (c *Consumer) partition(topic string, id int32) *partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[topicPartition{topic, id}]
}

// owned are the partitions that are ours.
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
