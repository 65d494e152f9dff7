package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"example.com/keyline/pkg/kafka"
)

const secret = "hunter2-hunter2"

func TestConfig_Errors(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := []string{"127.0.0.1:9092"}
	for name, of := range map[string]struct {
		cfg  kafka.Config
		want string
	}{
		"no broker":                   {kafka.Config{}, "KAFKA_BROKERS"},
		"a broker that is no address": {kafka.Config{Brokers: []string{"a:b:c"}}, "KAFKA_BROKERS"},
		"an empty broker":             {kafka.Config{Brokers: []string{""}}, "KAFKA_BROKERS"},
		"a user without a mechanism":  {kafka.Config{Brokers: b, SASLUsername: "u", SASLPassword: secret}, "KAFKA_SASL_MECHANISM"},
		"a mechanism without a user":  {kafka.Config{Brokers: b, SASLMechanism: "PLAIN", SASLPassword: secret}, "KAFKA_SASL_USERNAME"},
		"a user without a password":   {kafka.Config{Brokers: b, SASLMechanism: "PLAIN", SASLUsername: "u"}, "KAFKA_SASL_PASSWORD"},
		"an unknown mechanism":        {kafka.Config{Brokers: b, SASLMechanism: "plain"}, "must be PLAIN"},
		"a certificate without a key": {kafka.Config{Brokers: b, TLSCertFile: empty}, "KAFKA_TLS_KEY_FILE"},
		"a missing authority":         {kafka.Config{Brokers: b, TLSCAFile: empty + "x"}, "KAFKA_TLS_CA_FILE"},
		"an empty authority":          {kafka.Config{Brokers: b, TLSCAFile: empty}, "KAFKA_TLS_CA_FILE"},
		"a certificate that is none":  {kafka.Config{Brokers: b, TLSCertFile: empty, TLSKeyFile: empty}, "KAFKA_TLS_CERT_FILE"},
	} {
		t.Run(name+" is an error that names the variable", func(t *testing.T) {
			t.Parallel()
			_, err := kafka.NewProducer(of.cfg)
			of.cfg.Group = "group"
			_, err2 := kafka.NewConsumer(of.cfg, []string{"orders"}, newRecorder())
			for _, err := range []error{err, err2, kafka.Provision(t.Context(), of.cfg, nil)} {
				if err == nil || !strings.Contains(err.Error(), of.want) || strings.Contains(err.Error(), secret) {
					t.Errorf("got %v, want an error with %s and without the password", err, of.want)
				}
			}
		})
	}
	t.Run("a consumer without a group or topics is an error", func(t *testing.T) {
		t.Parallel()
		if _, err := kafka.NewConsumer(kafka.Config{Brokers: b}, []string{"orders"}, newRecorder()); err == nil || !strings.Contains(err.Error(), "KAFKA_GROUP") {
			t.Errorf("got %v, want an error with KAFKA_GROUP", err)
		}
		for _, topics := range [][]string{nil, {""}} {
			if _, err := kafka.NewConsumer(kafka.Config{Brokers: b, Group: "group"}, topics, newRecorder()); err == nil {
				t.Errorf("topics %q: got nil, want an error", topics)
			}
		}
	})
}

func TestConfig_SASL(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		cluster := fake(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "inventory", secret))
		right := kafka.Config{Brokers: cluster.ListenAddrs(), Group: "group", SASLMechanism: mechanism, SASLUsername: "inventory", SASLPassword: secret}

		t.Run(mechanism+": the right password publishes and consumes", func(t *testing.T) {
			t.Parallel()
			if err := kafka.Provision(t.Context(), right, []kafka.Topic{{Name: "orders", Partitions: 1}}); err != nil {
				t.Fatal(err)
			}
			if errs := newProducer(t, right).Publish(t.Context(), numbered("orders", 0, 10, "k")); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
			rec := newRecorder()
			consume(t, right, rec, nil, "orders")
			rec.waitFor(t, 10)
		})
		t.Run(mechanism+": a wrong password joins nothing, is logged, and never shown", func(t *testing.T) {
			t.Parallel()
			wrong, book := right, &logbook{}
			wrong.SASLPassword, wrong.Log = secret+"-wrong", book.logger()
			c := consume(t, wrong, newRecorder(), nil, "orders")
			book.wait(t, "level=WARN", "brokers do not answer")
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			errs := newProducer(t, wrong).Publish(ctx, numbered("orders", 0, 1, "k"))
			if len(errs) != 1 || errs[0] == nil {
				t.Errorf("Publish: got %v, want an error", errs)
			}
			if err := c.Ping(ctx); err == nil || c.Joined() {
				t.Errorf("Ping: got %v, Joined: %v; want an error and false", err, c.Joined())
			}
			if all := book.String() + fmt.Sprint(errs); strings.Contains(all, secret) {
				t.Errorf("the password shows in\n%s", all)
			}
		})
	}
}

// A login that is allowed nothing reaches the brokers, and is told so.
func TestForbidden(t *testing.T) {
	t.Parallel()
	cluster := fake(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "inventory", secret), kfake.SeedTopics(1, "orders"))
	cfg := kafka.Config{Brokers: cluster.ListenAddrs(), SASLMechanism: "PLAIN", SASLUsername: "inventory", SASLPassword: secret}
	r, err := kafka.NewReader(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, ends := r.Ends(t.Context(), "orders")
	_, lag := r.Lag(t.Context(), "inventory", time.Second, "orders")
	_, plan := kafka.Plan(t.Context(), cfg, []kafka.Topic{{Name: "orders", Partitions: 1}})
	for what, err := range map[string]error{"Ends": ends, "Lag": lag, "Plan": plan} {
		if !kafka.Forbidden(err) {
			t.Errorf("%s: got %v, want that it is forbidden", what, err)
		}
	}
	if kafka.Forbidden(kafka.ErrNoTopic) || kafka.Forbidden(nil) {
		t.Error("what is no refusal is taken for one")
	}
}

func TestConfig_TLS(t *testing.T) {
	t.Parallel()
	server, caFile, certFile, keyFile := authority(t)
	cluster := fake(t, kfake.TLS(server), kfake.SeedTopics(1, "orders"))
	addrs := cluster.ListenAddrs()

	t.Run("an authority and a certificate from files are used", func(t *testing.T) {
		t.Parallel()
		p := newProducer(t, kafka.Config{Brokers: addrs, TLSCAFile: caFile, TLSCertFile: certFile, TLSKeyFile: keyFile})
		if errs := p.Publish(t.Context(), numbered("orders", 0, 1, "k")); errs != nil {
			t.Error(errors.Join(errs...))
		}
	})
	for name, cfg := range map[string]kafka.Config{
		"the system's authorities do not vouch for it": {TLS: true},
		"a client without a certificate is refused":    {TLS: true, TLSCAFile: caFile},
		"plain text is refused":                        {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Brokers = addrs
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := newProducer(t, cfg).Ping(ctx); err == nil {
				t.Error("Ping: got nil, want an error")
			}
		})
	}
	t.Run("TLS never falls back to plain text", func(t *testing.T) {
		t.Parallel()
		plain := fake(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := newProducer(t, kafka.Config{Brokers: plain.ListenAddrs(), TLS: true}).Ping(ctx); err == nil {
			t.Error("Ping: got nil from a broker without TLS")
		}
	})
}

// authority makes a certificate authority with one certificate, for broker and client alike.
func authority(t *testing.T) (server *tls.Config, caFile, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	caFile, certFile, keyFile = write("ca.pem", "CERTIFICATE", der), write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", keyDER)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, caFile, certFile, keyFile
}
