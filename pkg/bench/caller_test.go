package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestReadHead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer   string
		status, length int
		fails          bool
	}{
		{"an answer", "HTTP/1.1 202 Accepted\r\nDate: now\r\ncontent-length: 4\r\n\r\nbody", 202, 4, false},
		{"another status", "HTTP/1.1 503 Service Unavailable\r\nContent-Length:0\r\n\r\n", 503, 0, false},
		{"no length", "HTTP/1.1 202 Accepted\r\n\r\n", 0, 0, true},
		{"a length that is no number", "HTTP/1.1 202 Accepted\r\nContent-Length: x\r\n\r\n", 0, 0, true},
		{"another protocol", "220\r\n\r\n", 0, 0, true},
		{"a status that is no number", "HTTP/1.1 x\r\n\r\n", 0, 0, true},
		{"a cut answer", "HTTP/1.1 202 Acc", 0, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, length, err := readHead(bufio.NewReader(strings.NewReader(tt.answer)))
			if status != tt.status || length != tt.length || (err != nil) != tt.fails {
				t.Errorf("readHead(%q) = %d, %d, %v, want %d, %d, an error: %v", tt.answer, status, length, err, tt.status, tt.length, tt.fails)
			}
		})
	}
}
