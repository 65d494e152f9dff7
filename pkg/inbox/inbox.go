package inbox

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the tables of an inbox, for [db.DB.Migrate].
var Migrations = db.Migrations{Owner: "inbox", Files: files}

// Config is what an inbox may be told.
type Config struct {
	// Group is the consumer group: the name under which the service takes events.
	Group string `env:"-"`
	// Attempts is after how many failures an event is a dead letter; the poll's attempt is
	// the first. 10 if 0.
	Attempts int `env:"RETRY_ATTEMPTS" envDefault:"10"`
	// MaxBackoff caps the pause between two attempts, which begins at 100 ms and doubles;
	// 60 s if 0.
	MaxBackoff time.Duration `env:"RETRY_MAX_BACKOFF" envDefault:"60s"`
	// Claim is how long a slow effect may take; 60 s if 0. While it runs its claim is renewed:
	// after a crash another worker takes the key over within a sixth of this time.
	Claim time.Duration `env:"-"`
	// Workers is how many events of waiting keys run at a time, and how many slow effects; 16
	// if 0.
	Workers int `env:"-"`
	// Clean is how often rows that no record needs any more are removed; 1 min if 0.
	Clean time.Duration `env:"-"`

	Tracer trace.Tracer `env:"-"`
	Meter  metric.Meter `env:"-"`
	Log    *slog.Logger `env:"-"`
}

const firstBackoff = 100 * time.Millisecond

// Inbox runs the handlers of one consumer group. Register handlers first; from then on it
// is safe for concurrent use.
type Inbox struct {
	db       *db.DB
	codec    *codec.Codec
	outbox   *outbox.Outbox
	cfg      Config
	handlers map[string]*handler // by event type
	wake     chan struct{}
	breaker  breaker
	effects  *effects
	metrics  *metrics
	runFor   time.Duration
	looked   bool // for what an earlier process has left unavailable; only findUnavailable's

	mu       sync.Mutex
	taking   map[topicKey]*db.GroupCommit[[]*item]
	ending   map[string]*db.GroupCommit[*effect] // by topic
	progress map[source]progress                 // for the clean-up
	cleaning chan struct{}                       // holds one: somebody cleans up, or rewinds
}

// New makes the inbox of one group. Its tables are made by [Migrations]; the copies of its
// dead letters go through o.
func New(d *db.DB, c *codec.Codec, o *outbox.Outbox, cfg Config) (*Inbox, error) {
	if cfg.Group == "" {
		return nil, errors.New("inbox: Config.Group is empty")
	}
	if cfg.Attempts < 0 || cfg.MaxBackoff < 0 {
		return nil, errors.New("RETRY_ATTEMPTS and RETRY_MAX_BACKOFF must not be negative")
	}
	cfg.Attempts = cmp.Or(cfg.Attempts, 10)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, time.Minute)
	cfg.Claim = cmp.Or(cfg.Claim, time.Minute)
	cfg.Workers = cmp.Or(cfg.Workers, 16)
	cfg.Clean = cmp.Or(cfg.Clean, time.Minute)
	if cfg.Tracer == nil {
		cfg.Tracer = tracenoop.Tracer{}
	}
	if cfg.Meter == nil {
		cfg.Meter = metricnoop.Meter{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Meter, cfg.Group)
	if err != nil {
		return nil, err
	}
	return &Inbox{
		db: d, codec: c, outbox: o, cfg: cfg, metrics: m,
		handlers: map[string]*handler{}, effects: newEffects(cfg.Workers), wake: make(chan struct{}, 1), runFor: runFor,
		breaker: breaker{open: map[string]*circuit{}, dead: map[string]int{}},
		taking:  map[topicKey]*db.GroupCommit[[]*item]{}, ending: map[string]*db.GroupCommit[*effect]{},
		progress: map[source]progress{}, cleaning: make(chan struct{}, 1),
	}, nil
}

// Policy is what a handler declares of itself when it is registered; it may declare several.
type Policy int

const (
	// SkipDead sets a dead letter aside and goes on with the key, which else waits until an
	// operator redrives or drops it: for handlers whose effect later events of the key do not
	// build on.
	SkipDead Policy = iota
	// Repeatable lets an operator run events again that are done, see [Inbox.Replay]: for
	// handlers that may see an event twice, and after later events of its key.
	Repeatable
)

// handler runs the events of one type. Exactly one of one, batch and slow is set.
type handler struct {
	topic      string
	skipDead   bool
	repeatable bool

	decode func(ctx context.Context, value []byte) (any, error)
	one    func(ctx context.Context, tx *db.Tx, d delivery) error
	batch  func(ctx context.Context, tx *db.Tx, ds []delivery) error
	slow   *slow
}

// slow is the three steps of a slow handler. begin, which may be nil, and end are given events of
// different keys; without a begin, end is not called for those of which do has left nothing.
type slow struct {
	begin func(ctx context.Context, tx *db.Tx, ds []delivery) (begun []any, err error)
	do    func(ctx context.Context, d delivery, begun any) (left any, err error)
	end   func(ctx context.Context, tx *db.Tx, ds []delivery, left []any) error
}

// delivery is a decoded event on its way into a handler.
type delivery struct {
	meta event.Meta
	data any
}

// Handle registers the handler of one type of event. fn runs in the transaction that takes
// the event: its effect happens once, and in the order of the key. It must not wait for
// anything but the database; see [HandleSlow]. fn returns nil when the event is done;
// [Permanent] makes a dead letter at once, [Unavailable] waits without counting attempts,
// any other error is tried again. Registering a type twice panics.
func Handle[P event.Payload](in *Inbox, fn func(context.Context, *db.Tx, event.Event[P]) error, policy ...Policy) {
	h := register[P](in, policy)
	h.one = func(ctx context.Context, tx *db.Tx, d delivery) error {
		return fn(ctx, tx, event.Event[P]{Data: d.data.(P), Meta: d.meta})
	}
}

// HandleBatch registers a handler that works on many events with one statement. The events
// of one call have different keys; an error means that none of them is done, and they are
// given again one by one.
func HandleBatch[P event.Payload](in *Inbox, fn func(context.Context, *db.Tx, []event.Event[P]) error, policy ...Policy) {
	h := register[P](in, policy)
	h.batch = func(ctx context.Context, tx *db.Tx, ds []delivery) error { return fn(ctx, tx, events[P](ds)) }
}

func events[P event.Payload](ds []delivery) []event.Event[P] {
	all := make([]event.Event[P], len(ds))
	for i, d := range ds {
		all[i] = event.Event[P]{Data: d.data.(P), Meta: d.meta}
	}
	return all
}

// Done writes what remains after a slow effect, in the transaction that ends the event.
type Done func(ctx context.Context, tx *db.Tx) error

// HandleSlow registers a handler with an effect outside the database, such as a mail. fn
// runs outside any transaction, one event of a key at a time, under a claim of
// [Config.Claim], which bounds its context; what it returns is written when the claim still
// holds, and before the next event of the key. Where it returns nothing to write, events of the
// key may follow at once for 20 ms, up to 8, and are written as done together. A crash after an effect
// repeats it, and those that were to be written with it, so fn keeps a ledger or gives the effect
// a name by the event's ID.
func HandleSlow[P event.Payload](in *Inbox, fn func(context.Context, event.Event[P]) (Done, error), policy ...Policy) {
	register[P](in, policy).slow = &slow{
		do: func(ctx context.Context, d delivery, _ any) (any, error) {
			done, err := fn(ctx, event.Event[P]{Data: d.data.(P), Meta: d.meta})
			if done == nil {
				return nil, err
			}
			return done, err
		},
		end: func(ctx context.Context, tx *db.Tx, _ []delivery, left []any) error {
			for _, done := range left {
				if err := done.(Done)(ctx, tx); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// Effect is a slow handler in three steps, of which those in the database work on many events
// with one statement. The events of one call have different keys. B is what is known of an event
// between the steps.
type Effect[P event.Payload, B any] struct {
	// Begin writes down that the effects are about to happen, in the transaction that claims
	// their keys, and returns as many Bs. An error is as one of [HandleBatch]'s handlers. It may
	// be called again for an event, and without the effect after it.
	Begin func(context.Context, *db.Tx, []event.Event[P]) ([]B, error)
	// Do has one effect, as the function of [HandleSlow] does.
	Do func(context.Context, event.Event[P], B) error
	// End writes down that the effects have happened, if the claims still hold. After an error
	// it is tried again, without the effect.
	End func(context.Context, *db.Tx, []event.Event[P], []B) error
}

// HandleEffect is [HandleSlow] for many events at a time.
func HandleEffect[P event.Payload, B any](in *Inbox, e Effect[P, B], policy ...Policy) {
	register[P](in, policy).slow = &slow{
		begin: func(ctx context.Context, tx *db.Tx, ds []delivery) ([]any, error) {
			all, err := e.Begin(ctx, tx, events[P](ds))
			if err == nil && len(all) != len(ds) {
				err = Permanent(fmt.Errorf("begin returned %d of the %d effects of %s", len(all), len(ds), ds[0].meta.Type))
			}
			begun := make([]any, len(all))
			for i, b := range all {
				begun[i] = b
			}
			return begun, err
		},
		do: func(ctx context.Context, d delivery, begun any) (any, error) {
			b, _ := begun.(B) // it may be nil
			return begun, e.Do(ctx, event.Event[P]{Data: d.data.(P), Meta: d.meta}, b)
		},
		end: func(ctx context.Context, tx *db.Tx, ds []delivery, begun []any) error {
			all := make([]B, len(begun))
			for i, b := range begun {
				all[i], _ = b.(B)
			}
			return e.End(ctx, tx, events[P](ds), all)
		},
	}
}

func register[P event.Payload](in *Inbox, policy []Policy) *handler {
	var zero P
	typ := codec.FullName(zero.Schema())
	if in.handlers[typ] != nil {
		panic(fmt.Sprintf("inbox: %s has a handler already", typ))
	}
	h := &handler{topic: zero.Topic(), skipDead: slices.Contains(policy, SkipDead), repeatable: slices.Contains(policy, Repeatable)}
	h.decode = func(ctx context.Context, value []byte) (any, error) {
		return codec.Decode[P](ctx, in.codec, value)
	}
	in.handlers[typ] = h
	return h
}

// Topics are the topics of the registered types, sorted.
func (in *Inbox) Topics() []string {
	var topics []string
	for _, h := range in.handlers {
		if !slices.Contains(topics, h.topic) {
			topics = append(topics, h.topic)
		}
	}
	slices.Sort(topics)
	return topics
}
