package embedded

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	headBytes       = 8       // length, API key and API version
	maxProduceBytes = 8 << 20 // more than a client's largest request for six partitions
	maxRequestBytes = 1 << 20 // of every other kind; kmsg grows some of them a hundredfold
)

// guard looks at the first bytes of every request before kfake does: kfake allocates whatever
// the length says, and an API key that it does not know makes it panic.
type guard struct {
	*loopback
	log *slog.Logger
}

// Accept waits for the next connection and guards it.
func (g guard) Accept() (net.Conn, error) {
	c, err := g.loopback.Accept()
	if err != nil {
		return nil, err
	}
	return &guardedConn{Conn: c, log: g.log}, nil
}

// guardedConn passes the stream on unchanged, whatever the client pipelines, as long as each
// request's head is sound.
type guardedConn struct {
	net.Conn
	log *slog.Logger

	head [headBytes]byte
	done int // bytes of the current request that were passed on
	size int // of the current request with its length prefix; done == size: at a boundary
}

// Read passes on bytes of one request. A head that kfake must not see closes the connection.
func (c *guardedConn) Read(p []byte) (int, error) {
	if c.done == c.size {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.done < headBytes {
		n := copy(p, c.head[c.done:])
		c.done += n
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), c.size-c.done)])
	c.done += n
	return n, err
}

func (c *guardedConn) next() error {
	if _, err := io.ReadFull(c.Conn, c.head[:]); err != nil {
		return err
	}
	size, err := checkHead(c.head)
	if err != nil {
		c.log.Warn("kafka connection refused", "remote", c.RemoteAddr().String(), "error", err)
		c.Close()
		return err
	}
	c.done, c.size = 0, size
	return nil
}

// checkHead returns the request's size with its length prefix.
func checkHead(head [headBytes]byte) (int, error) {
	length := int64(binary.BigEndian.Uint32(head[:4]))
	key := int16(binary.BigEndian.Uint16(head[4:6]))
	version := int16(binary.BigEndian.Uint16(head[6:8]))

	request := kmsg.RequestForKey(key)
	limit := int64(maxRequestBytes)
	if key == kmsg.Produce.Int16() {
		limit = maxProduceBytes
	}
	switch {
	case request == nil:
		return 0, fmt.Errorf("unknown API key %d", key)
	case version < 0, version > request.MaxVersion() && key != kmsg.ApiVersions.Int16():
		// A client newer than kfake asks for ApiVersions first, and is told what there is.
		return 0, fmt.Errorf("unknown version %d of API key %d", version, key)
	case length < headBytes || length > limit:
		return 0, fmt.Errorf("request of %d bytes with API key %d", length, key)
	}
	return 4 + int(length), nil
}
