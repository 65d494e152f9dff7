package email

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"

	"github.com/wneessen/go-mail/smtp"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// What the tests use beside what is exported.
var (
	Migrations = migrations
	Payloads   = payloads
	OpenAPI    = openAPI
	Money      = money
)

func New(d *db.DB, o *outbox.Outbox, cfg SMTPConfig, tracer trace.Tracer, log *slog.Logger) (*Service, error) {
	m, err := newMailer(cfg, tracer)
	if err != nil {
		return nil, err
	}
	return &Service{db: d, outbox: o, mailer: m, log: log}, nil
}

func (s *Service) Register(in *inbox.Inbox) { s.register(in) }

func (s *Service) Routes() map[string]http.HandlerFunc { return s.routes() }

func (s *Service) Mux() *http.ServeMux { return s.mux() }

// Trust makes the service believe a mail server's certificate.
func (s *Service) Trust(roots *x509.CertPool) {
	s.mailer.dial = (&tls.Dialer{Config: &tls.Config{ServerName: s.mailer.host, RootCAs: roots}}).DialContext
}

// Connection and Idle are the mailer's.
type (
	Connection = connection
	Idle       struct{ idle }
)

func NewConnection(wire net.Conn) (*Connection, error) {
	session, err := smtp.NewClient(wire, "mail.example")
	return &connection{wire: wire, session: session}, err
}

func NewIdle() *Idle { return &Idle{} }

func (i *Idle) Put(c *Connection) { i.put(c) }

func (i *Idle) Take() *Connection { return i.take() }

func (i *Idle) Close() { i.close() }
