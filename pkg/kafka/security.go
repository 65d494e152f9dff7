package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// security returns the options for TLS and SASL. A combination that is not whole is an
// error: half a configuration must never become a connection without it.
func (c Config) security() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	t, err := c.tls()
	if err != nil {
		return nil, err
	}
	if t != nil {
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	s, err := c.sasl()
	if err != nil {
		return nil, err
	}
	return append(opts, s...), nil
}

// tls returns nil if the configuration does not ask for TLS.
func (c Config) tls() (*tls.Config, error) {
	if !c.TLS && c.TLSCAFile == "" && c.TLSCertFile == "" && c.TLSKeyFile == "" {
		return nil, nil
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		return nil, errors.New("KAFKA_TLS_CERT_FILE and KAFKA_TLS_KEY_FILE belong together: one of them is missing")
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("KAFKA_TLS_CA_FILE: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("KAFKA_TLS_CA_FILE: %s holds no PEM certificate", c.TLSCAFile)
		}
	}
	if c.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("KAFKA_TLS_CERT_FILE and KAFKA_TLS_KEY_FILE: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

func (c Config) sasl() ([]kgo.Opt, error) {
	if c.SASLMechanism == "" {
		if c.SASLUsername != "" || c.SASLPassword != "" {
			return nil, errors.New("KAFKA_SASL_MECHANISM is missing, but KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is set")
		}
		return nil, nil
	}
	mechanism := mechanisms[c.SASLMechanism]
	if mechanism == nil {
		return nil, fmt.Errorf("KAFKA_SASL_MECHANISM is %q: it must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASLMechanism)
	}
	if c.SASLUsername == "" {
		return nil, errors.New("KAFKA_SASL_USERNAME is missing, but KAFKA_SASL_MECHANISM is set")
	}
	if c.SASLPassword == "" {
		return nil, errors.New("KAFKA_SASL_PASSWORD is missing, but KAFKA_SASL_MECHANISM is set")
	}
	return []kgo.Opt{kgo.SASL(mechanism(c.SASLUsername, c.SASLPassword))}, nil
}

var mechanisms = map[string]func(user, password string) sasl.Mechanism{
	"PLAIN": func(user, password string) sasl.Mechanism {
		return plain.Auth{User: user, Pass: password}.AsMechanism()
	},
	"SCRAM-SHA-256": func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	},
	"SCRAM-SHA-512": func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	},
}
