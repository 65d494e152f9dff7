package email

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/inbox"
)

// SMTPConfig says which mail server takes the mails.
type SMTPConfig struct {
	Addr     string `env:"SMTP_ADDR,required,notEmpty" expect:"host:port of the mail server"`
	From     string `env:"SMTP_FROM" envDefault:"Keyline Shop <shop@keyline.example>"`
	Username string `env:"SMTP_USERNAME"`
	Password string `env:"SMTP_PASSWORD"`
	// TLS is auto (STARTTLS where the server offers it), starttls, tls (from the first byte)
	// or off. With a username, auto is starttls and off is refused: nothing is sent over a
	// connection that is not encrypted.
	TLS string `env:"SMTP_TLS" envDefault:"auto" expect:"auto, starttls, tls or off"`

	// Dial, if set, makes the connections in place of a net.Dialer. With TLS tls it is not used.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) `env:"-"`
}

// mailer sends mails. It is safe for concurrent use.
type mailer struct {
	host   string
	opts   []gomail.Option
	dial   gomail.DialContextFunc
	from   string
	domain string // of the Message-IDs
	tracer trace.Tracer
	attrs  []attribute.KeyValue
	broken broken
	idle   idle
}

// sendTimeout bounds each of the four steps of a conversation with the mail server, so that
// all of it ends well before the inbox's claim does.
const sendTimeout = 10 * time.Second

func newMailer(cfg SMTPConfig, tracer trace.Tracer) (*mailer, error) {
	host, portText, err := net.SplitHostPort(cfg.Addr)
	port, atoiErr := strconv.Atoi(portText)
	if err != nil || atoiErr != nil || host == "" {
		return nil, errors.New("SMTP_ADDR must be host:port, such as mail.example.com:587")
	}
	from, err := mail.ParseAddress(cfg.From)
	if err != nil {
		return nil, errors.New("SMTP_FROM must be a mail address, such as Shop <shop@example.com>")
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	m := &mailer{host: host, from: from.String(), domain: domain, tracer: tracer, attrs: []attribute.KeyValue{
		attribute.String("server.address", host), attribute.Int("server.port", port),
	}}
	policy, err := m.encrypt(cfg)
	if err != nil {
		return nil, err
	}
	m.opts = []gomail.Option{
		gomail.WithPort(port), gomail.WithTimeout(sendTimeout), gomail.WithTLSPolicy(policy),
		// What a connection carried before went well: there is nothing to check or to reset.
		gomail.WithoutNoop(), gomail.WithoutRset(),
	}
	if cfg.Username != "" {
		m.opts = append(m.opts, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(cfg.Username), gomail.WithPassword(cfg.Password))
	}
	if _, err := gomail.NewClient(host, m.opts...); err != nil {
		return nil, fmt.Errorf("SMTP_ADDR: %w", err)
	}
	return m, nil
}

// encrypt chooses how connections are made, and what is asked of those that begin in clear
// text.
func (m *mailer) encrypt(cfg SMTPConfig) (gomail.TLSPolicy, error) {
	m.dial = cfg.Dial
	if m.dial == nil {
		m.dial = (&net.Dialer{}).DialContext
	}
	switch way := cmp.Or(cfg.TLS, "auto"); {
	case way == "tls":
		m.dial = (&tls.Dialer{Config: &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12}}).DialContext
		return gomail.TLSOpportunistic, nil // it is encrypted already
	case way == "starttls", way == "auto" && cfg.Username != "":
		return gomail.TLSMandatory, nil
	case way == "auto":
		return gomail.TLSOpportunistic, nil
	case way == "off" && cfg.Username == "":
		return gomail.NoTLS, nil
	case way == "off":
		return 0, errors.New("SMTP_TLS must not be off with SMTP_USERNAME: the password would travel in clear text")
	}
	return 0, errors.New("SMTP_TLS must be auto, starttls, tls or off")
}

// messageID is the Message-ID of a mail.
func (m *mailer) messageID(mailID string) string { return "<" + mailID + "@" + m.domain + ">" }

// send hands a mail to the server and returns once the server has taken it. The error never
// holds the recipient. Its class is told in answers.go.
func (m *mailer) send(ctx context.Context, to, messageID string, l Letter) (err error) {
	ctx, span := m.tracer.Start(ctx, "smtp send", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(m.attrs...))
	defer func() {
		if err != nil {
			span.SetAttributes(attribute.String("error.type", "smtp"))
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	msg, err := m.compose(to, messageID, l)
	if err != nil {
		return inbox.Permanent(err)
	}
	return m.deliver(ctx, messageID, msg)
}

// deliver hands a mail to the server, over a connection that is cut when ctx ends.
func (m *mailer) deliver(ctx context.Context, messageID string, msg *gomail.Msg) error {
	for {
		c, rested, err := m.connect(ctx)
		if err != nil {
			return inbox.Unavailable(fmt.Errorf("reach the mail server: %w", err))
		}
		keep := context.AfterFunc(ctx, c.cut)
		err = c.client.SendWithSMTPClient(c.session, msg)
		if keep() && err == nil {
			m.idle.put(c)
		} else {
			c.cut()
		}
		if !rested || !unheard(err) {
			return m.outcome(messageID, err)
		}
	}
}

// connect takes a connection that has carried a mail a moment ago, or makes one.
func (m *mailer) connect(ctx context.Context) (c *connection, rested bool, err error) {
	if c := m.idle.take(); c != nil {
		return c, true, nil
	}
	c = &connection{}
	// The library leaves a connection open whose first words have failed.
	dial := func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
		c.wire, err = m.dial(ctx, network, addr)
		return c.wire, err
	}
	if c.client, err = gomail.NewClient(m.host, append(slices.Clip(m.opts), gomail.WithDialContextFunc(dial))...); err != nil {
		return nil, false, err
	}
	if c.session, err = c.client.DialToSMTPClientWithContext(ctx); err != nil {
		c.cut()
		return nil, false, err
	}
	return c, false, nil
}

func (m *mailer) compose(to, messageID string, l Letter) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if msg.From(m.from) != nil || msg.To(to) != nil {
		return nil, errAddress // the library's error would quote it
	}
	msg.Subject(l.Subject())
	msg.SetMessageIDWithValue(strings.Trim(messageID, "<>"))
	msg.SetDate()
	msg.SetBodyString(gomail.TypeTextPlain, l.Text())
	msg.AddAlternativeString(gomail.TypeTextHTML, l.HTML())
	return msg, nil
}

var errAddress = errors.New("customer_email is no mail address")
