package embedded_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestKafka_hostileBytes(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{Topics: []embedded.Topic{orders}})
	for name, bytes := range map[string][]byte{
		"the 14 bytes that panic kfake":            request(9999, 0, nil),
		"an unknown API key behind a good request": slices.Concat(apiVersions(1), request(9999, 0, nil)),
		"a negative API key":                       request(-1, 0, nil),
		"a version that no client has":             request(kmsg.Metadata.Int16(), 99, nil),
		"a negative version":                       request(kmsg.Metadata.Int16(), -1, nil),
		"a length of 4 GiB":                        slices.Concat([]byte{0xff, 0xff, 0xff, 0xff}, request(0, 9, nil)[4:]),
		"a produce request over 8 MiB":             slices.Concat(length(8<<20+1), request(0, 9, nil)[4:]),
		"a metadata request over 1 MiB":            slices.Concat(length(1<<20+1), request(3, 9, nil)[4:]),
		"a length of zero":                         make([]byte, 64),
		"a length too short for a header":          slices.Concat(length(7), request(3, 9, nil)[4:]),
		"a browser":                                []byte("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
		"a body that does not parse":               request(kmsg.Metadata.Int16(), 9, []byte{0xff, 0xff, 0xff, 0xff, 0x7f}),
	} {
		t.Run(name+" closes the connection and nothing else", func(t *testing.T) {
			t.Parallel()
			c := dial(t, k)
			if _, err := c.Write(bytes); err != nil {
				t.Fatalf("write: %v", err)
			}
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				t.Error("the connection is still open after 10 s")
			}
			if err := client(t, k).Ping(t.Context()); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

func TestKafka_pipelining(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{})
	three := slices.Concat(apiVersions(1), apiVersions(2), apiVersions(3))
	t.Run("three requests in one packet are answered in order", func(t *testing.T) {
		t.Parallel()
		c := dial(t, k)
		write(t, c, three)
		wantAnswers(t, c, 1, 2, 3)
	})
	t.Run("requests that arrive byte by byte are answered in order", func(t *testing.T) {
		t.Parallel()
		c := dial(t, k)
		for i := range three {
			write(t, c, three[i:i+1])
		}
		wantAnswers(t, c, 1, 2, 3)
	})
	t.Run("a client newer than the broker is told what there is", func(t *testing.T) {
		t.Parallel()
		c := dial(t, k)
		write(t, c, request(kmsg.ApiVersions.Int16(), 99, []byte{2, 'x', 2, '1', 0, 0xff, 0xff, 0xff, 0xff, 0}))
		wantAnswers(t, c, 7)
	})
}

func TestKafka_largeRecords(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{Topics: []embedded.Topic{orders}})
	c := client(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ManualFlushing())
	for p := range orders.Partitions {
		c.Produce(t.Context(), &kgo.Record{Topic: orders.Name, Partition: p, Value: make([]byte, 900_000)},
			func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce 900 kB to partition %d: %v", p, err)
				}
			})
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestKafka_connectionLimit(t *testing.T) {
	t.Parallel()
	k := startKafka(t, embedded.KafkaConfig{})
	conns := make([]net.Conn, 256)
	for i := range conns {
		conns[i] = dialServed(t, k)
	}
	if served(t, dial(t, k)) {
		t.Fatal("connection 257 is served")
	}
	conns[0].Close()
	dialServed(t, k)
}

// dialServed dials until the broker serves the connection: it notices the end of an earlier
// one a moment later.
func dialServed(t *testing.T, k *embedded.Kafka) net.Conn {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if c := dial(t, k); served(t, c) {
			return c
		}
	}
	t.Fatal("no connection is served within 10 s")
	return nil
}

func served(t *testing.T, c net.Conn) bool {
	t.Helper()
	if _, err := c.Write(apiVersions(1)); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 8))
	if isTimeout(err) {
		t.Fatal("no answer within 10 s")
	}
	return err == nil
}

// request frames a request with correlation ID 7 and the client ID "test".
func request(key, version int16, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7)
	if known := kmsg.RequestForKey(key); known != nil {
		b = append(b, 0, 4, 't', 'e', 's', 't')
		known.SetVersion(version)
		if known.IsFlexible() {
			b = append(b, 0)
		}
	} else {
		b = append(b, 0xff, 0xff) // no client ID: 14 bytes in all
	}
	b = append(b, body...)
	return append(length(len(b)), b...)
}

func length(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func apiVersions(correlation byte) []byte {
	b := request(kmsg.ApiVersions.Int16(), 0, nil)
	b[11] = correlation
	return b
}

func wantAnswers(t *testing.T, c net.Conn, correlations ...uint32) {
	t.Helper()
	for _, want := range correlations {
		head := make([]byte, 8)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatalf("answer %d: %v", want, err)
		}
		if got := binary.BigEndian.Uint32(head[4:]); got != want {
			t.Fatalf("answer has correlation ID %d, want %d", got, want)
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head))-4); err != nil {
			t.Fatalf("rest of answer %d: %v", want, err)
		}
	}
}

func dial(t *testing.T, k *embedded.Kafka) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", k.Addr())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, c net.Conn, bytes []byte) {
	t.Helper()
	if _, err := c.Write(bytes); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
