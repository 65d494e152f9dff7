package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// caller is a connection that carries one request after the other. It is less than http.Client
// because its processor time is missing to the server on a small machine.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func dial(ctx context.Context, addr string) (*caller, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &caller{conn: conn, in: bufio.NewReader(conn)}, nil
}

// callTimeout bounds one request.
const callTimeout = 30 * time.Second

func (c *caller) post(path, key, body string) (status int, answer []byte, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return 0, nil, err
	}
	c.out = fmt.Appendf(c.out[:0], "POST %s HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		path, key, len(body), body)
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	status, length, err := readHead(c.in)
	if err != nil {
		return 0, nil, err
	}
	answer = make([]byte, length)
	_, err = io.ReadFull(c.in, answer)
	return status, answer, err
}

// readHead reads an answer up to its body.
func readHead(in *bufio.Reader) (status, length int, err error) {
	line, err := in.ReadSlice('\n') // HTTP/1.1 202 Accepted
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("an answer begins with %q", line)
	}
	if status, err = strconv.Atoi(string(fields[1])); err != nil {
		return 0, 0, err
	}
	length = -1
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if strings.EqualFold(string(name), "Content-Length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, 0, err
			}
		}
	}
	if length < 0 {
		return 0, 0, fmt.Errorf("an answer %d without a length", status)
	}
	return status, length, nil
}
