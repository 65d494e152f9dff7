package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Config says how to reach the brokers. Only Brokers is required, for a consumer Group too.
// It holds a password: do not print it.
type Config struct {
	// Brokers are the addresses, host:port, that the cluster is first found through.
	Brokers []string `env:"KAFKA_BROKERS,required,notEmpty" expect:"host:port of a broker, or several with commas"`
	// ClientID names this client in the brokers' logs and quotas; Group if empty.
	ClientID string `env:"KAFKA_CLIENT_ID"`
	// Group is the consumer group. A producer does not need one.
	Group string `env:"KAFKA_GROUP"`
	// InstanceID makes the consumer a static member: a stop does not leave the group, and
	// its partitions wait for it until the session times out, after 20 s in place of 10; a
	// broker that no longer answers is noticed after 22 s in place of 12. Empty is a dynamic
	// member.
	InstanceID string `env:"KAFKA_INSTANCE_ID"`

	// SASLMechanism is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, or empty for none.
	SASLMechanism string `env:"KAFKA_SASL_MECHANISM"`
	SASLUsername  string `env:"KAFKA_SASL_USERNAME"`
	SASLPassword  string `env:"KAFKA_SASL_PASSWORD"`

	// TLS turns encryption on, with the system's certificate authorities. Each of the files
	// turns it on as well: nothing that asks for TLS is ever answered in plain text.
	TLS         bool   `env:"KAFKA_TLS"`
	TLSCAFile   string `env:"KAFKA_TLS_CA_FILE"`   // PEM, instead of the system's authorities
	TLSCertFile string `env:"KAFKA_TLS_CERT_FILE"` // PEM, with TLSKeyFile: this client's identity
	TLSKeyFile  string `env:"KAFKA_TLS_KEY_FILE"`

	// Tracer, Meter and Log receive telemetry; nil discards it.
	Tracer trace.Tracer `env:"-"`
	Meter  metric.Meter `env:"-"`
	Log    *slog.Logger `env:"-"`
	// BeforeSkip is called by [Consumer.Skip] before it commits; an error ends it. If the log
	// was cut, records may come again at the offsets of others from where it goes on; what
	// is remembered by offset must be forgotten.
	BeforeSkip func(ctx context.Context, topic string, topicID [16]byte, partition int32, to int64) error `env:"-"`
	// Reached tells behind which offset of a partition Process has taken nothing, 0 if that is
	// not known. It is asked where another program has set the group's offset, and what the
	// offset leaves out is reported.
	Reached func(ctx context.Context, topic string, topicID [16]byte, partition int32) (offset int64, err error) `env:"-"`
	// Opts are applied after those of this package, and can undo what it promises.
	Opts []kgo.Opt `env:"-"`
}

// clientOpts are the options of every client of this package, followed by extra and then by
// the user's. It checks the configuration; errors name the variable at fault.
func (c Config) clientOpts(extra ...kgo.Opt) ([]kgo.Opt, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("KAFKA_BROKERS is missing: set it to host:port, or several with commas")
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("KAFKA_BROKERS: %q is not host:port", b)
		}
	}
	id := c.ClientID
	if id == "" {
		id = c.Group
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.WithLogger(&clientLog{log: c.Log, last: map[string]time.Time{}}),
		// A topic that is created later is found after about this time.
		kgo.MetadataMinAge(time.Second),
		kgo.MetadataMaxAge(time.Minute),
		// The service has metrics of its own, and pushing them to the brokers as well
		// (KIP-714) can delay closing a client by a second.
		kgo.DisableClientMetrics(),
	}
	if id != "" {
		opts = append(opts, kgo.ClientID(id))
	}
	security, err := c.security()
	if err != nil {
		return nil, err
	}
	opts = append(append(append(opts, security...), extra...), c.Opts...)
	if err := kgo.ValidateOpts(opts...); err != nil {
		return nil, fmt.Errorf("kafka options: %w", err)
	}
	return opts, nil
}

// withDefaults returns c with telemetry that discards in place of none.
func (c Config) withDefaults() Config {
	if c.Tracer == nil {
		c.Tracer = tracenoop.Tracer{}
	}
	if c.Meter == nil {
		c.Meter = noop.Meter{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
