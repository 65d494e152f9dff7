package all

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
)

// parts are what the services stand on, embedded or real.
type parts struct {
	environ  map[string]string // of the services, with the addresses of what is embedded
	dir      string
	kept     bool               // dir is for the next start too
	registry *embedded.Registry // nil where a real one is used
	mailbox  *embedded.Mailbox  // nil where a real server is used
	closers  []func() error
}

// startParts starts what no variable names a real one for. After an error nothing runs.
func startParts(cfg Config, front string, log *slog.Logger) (started *parts, err error) {
	p := &parts{environ: maps.Clone(cfg.Environ), dir: cfg.Data, kept: cfg.Data != ""}
	if p.environ == nil {
		p.environ = map[string]string{}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.openFolder(); err != nil {
		return nil, err
	}
	kafkaID := p.environ["KAFKA_BROKERS"]
	if kafkaID == "" {
		if kafkaID, err = p.startKafka(cfg, log); err != nil {
			return nil, err
		}
	}
	if !p.has("SCHEMA_REGISTRY_URL") {
		if p.registry, err = embedded.NewRegistry(p.keep("registry")); err != nil {
			return nil, err
		}
		p.closers = append(p.closers, p.registry.Close)
		p.environ["SCHEMA_REGISTRY_URL"] = front + "/registry"
	}
	if !p.has("SMTP_ADDR") {
		if p.mailbox, err = embedded.StartMailbox(embedded.MailboxConfig{Port: cfg.SMTPPort}); err != nil {
			return nil, fmt.Errorf("SMTP_PORT: %w", err)
		}
		p.closers = append(p.closers, p.mailbox.Close)
		p.environ["SMTP_ADDR"] = p.mailbox.Addr()
	}
	return p, p.belongsTo(kafkaID)
}

// has reports whether a variable, or the file for it, is set.
func (p *parts) has(name string) bool { return p.environ[name] != "" || p.environ[name+"_FILE"] != "" }

func (p *parts) startKafka(cfg Config, log *slog.Logger) (id string, err error) {
	var topics []embedded.Topic
	for _, t := range schemas.Topics() {
		topics = append(topics, embedded.Topic(t))
	}
	k, err := embedded.StartKafka(embedded.KafkaConfig{Dir: p.keep("kafka"), Port: cfg.KafkaPort, Topics: topics, Log: log})
	if err != nil {
		if cfg.KafkaPort != 0 {
			err = fmt.Errorf("KAFKA_PORT: %w", err)
		}
		return "", err
	}
	p.closers = append(p.closers, k.Close)
	p.environ["KAFKA_BROKERS"] = k.Addr()
	return "embedded " + k.ClusterID(), nil
}

// keep is the folder of one part, empty where nothing is kept.
func (p *parts) keep(name string) string {
	if !p.kept {
		return ""
	}
	return filepath.Join(p.dir, name)
}

// openFolder makes the folder for everything: one that is kept, and locked, or a temporary
// one.
func (p *parts) openFolder() error {
	if !p.kept {
		dir, err := os.MkdirTemp("", "keyline-")
		if err != nil {
			return fmt.Errorf("make a temporary folder: %w", err)
		}
		p.dir = dir
		p.closers = append(p.closers, func() error { return os.RemoveAll(dir) })
		return nil
	}
	unlock, err := embedded.Lock(p.dir)
	if err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	p.closers = append(p.closers, unlock.Close)
	return nil
}

// belongsTo remembers which broker and registry the kept data were made with, and refuses a
// mix: offsets and schema IDs mean nothing elsewhere.
func (p *parts) belongsTo(kafkaID string) error {
	if !p.kept {
		return nil
	}
	type identity struct{ Kafka, Registry string }
	now := identity{Kafka: kafkaID, Registry: "embedded"}
	if p.registry == nil {
		now.Registry = p.environ["SCHEMA_REGISTRY_URL"]
	}
	file := filepath.Join(p.dir, "belongs-to.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = json.MarshalIndent(now, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	var then identity
	if err := json.Unmarshal(text, &then); err != nil {
		return fmt.Errorf("DATA: %s is damaged: choose another folder", file)
	}
	if then != now {
		return fmt.Errorf("DATA: the data were made with kafka %q and registry %q, not with kafka %q and registry %q: use those, or another folder",
			then.Kafka, then.Registry, now.Kafka, now.Registry)
	}
	return nil
}

// forService are the variables of one service: its database is derived from the one given.
func (p *parts) forService(name string) map[string]string {
	environ := maps.Clone(p.environ)
	// The front has the addresses; each service gets free ones behind it.
	for _, fixed := range []string{"HTTP_ADDR", "ADMIN_ADDR", "KAFKA_CLIENT_ID", "KAFKA_INSTANCE_ID", "OTEL_SERVICE_NAME"} {
		delete(environ, fixed)
	}
	environ["KAFKA_GROUP"] = p.group(name)
	if file := environ["DATABASE_URL_FILE"]; file != "" {
		if text, err := os.ReadFile(file); err == nil {
			environ["DATABASE_URL"] = strings.TrimSpace(string(text))
			delete(environ, "DATABASE_URL_FILE")
		}
	}
	if environ["DATABASE_URL_FILE"] == "" { // else it cannot be read, which the service says
		environ["DATABASE_URL"] = databaseURL(environ["DATABASE_URL"], p.dir, name)
	}
	if environ["LOG_LEVEL"] == "" {
		environ["LOG_LEVEL"] = "warn" // three services at once would bury the banner
	}
	return environ
}

// group is the consumer group of a service: behind KAFKA_GROUP, if that is set, so that two
// shops can use one broker without taking each other's partitions.
func (p *parts) group(name string) string {
	if prefix := p.environ["KAFKA_GROUP"]; prefix != "" {
		return prefix + "-" + name
	}
	return name
}

func databaseURL(given, dir, name string) string {
	if file, ok := strings.CutPrefix(given, "sqlite:"); ok && file != "" {
		ext := filepath.Ext(file)
		return "sqlite:" + strings.TrimSuffix(file, ext) + "-" + name + ext
	}
	if u, err := url.Parse(given); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		q := u.Query()
		q.Set("search_path", strings.TrimPrefix(q.Get("search_path")+"_", "_")+"keyline_"+name)
		u.RawQuery = q.Encode()
		return u.String()
	}
	if given != "" {
		return given // its error names the variable
	}
	return "sqlite:" + filepath.Join(dir, name+".db")
}

// provision creates the topics and registers the schemas, trying until both answer or ctx
// ends. Neither waits for the other.
func (p *parts) provision(ctx context.Context, log *slog.Logger) error {
	conf, err := service.Parse[struct {
		Kafka    kafka.Config
		Registry codec.Config
	}](p.environ)
	if err != nil {
		return err
	}
	if err := valid(conf.Kafka, conf.Registry); err != nil {
		return &service.ConfigError{Err: err}
	}
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	var both sync.WaitGroup
	both.Go(func() {
		persist(ctx, log, "topics", func() error { return kafka.Provision(ctx, conf.Kafka, p.topics()) })
	})
	both.Go(func() {
		persist(ctx, log, "schemas", func() error { return codec.Provision(ctx, conf.Registry, subjects) })
	})
	both.Wait()
	return nil
}

// valid finds what no trying again would mend. It connects to nothing.
func valid(k kafka.Config, r codec.Config) error {
	producer, err := kafka.NewProducer(k)
	if err != nil {
		return err
	}
	producer.Close()
	_, err = codec.New(r)
	return err
}

// topics are the shop's, with the dead letters of its own groups.
func (p *parts) topics() (topics []kafka.Topic) {
	for _, t := range schemas.Topics() {
		if topic, name, ok := schemas.DeadLetters(t.Name); ok {
			t.Name = inbox.DeadLetterTopic(topic, p.group(name))
		}
		topics = append(topics, kafka.Topic(t))
	}
	return topics
}

// persist repeats fn until it succeeds or ctx ends; a failure is logged when its text
// changes.
func persist(ctx context.Context, log *slog.Logger, what string, fn func() error) {
	reported := ""
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := fn()
		if err == nil || ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != reported {
			reported = text
			log.Warn("not provisioned yet, trying again", "what", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (p *parts) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	return errors.Join(errs...)
}

// firstPort is where the page is looked for.
const firstPort = 8080

// listenFront takes the given port, or 8080 or the next free one.
func listenFront(port int) (net.Listener, error) {
	if port != 0 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("PORT: %w", err)
		}
		return l, nil
	}
	for port := firstPort; port < firstPort+100; port++ {
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}
