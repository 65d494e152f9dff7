package kafka

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog passes on what the client library warns about. A broker that is away makes it
// repeat itself with every attempt of every connection, so that each message is let through
// once in logEvery, with the count of those that were not.
//
// The library calls errors what it goes on to retry, so nothing here is above a warning:
// what this package gives up on, it reports itself.
type clientLog struct {
	log *slog.Logger

	mu      sync.Mutex
	last    map[string]time.Time // by message; the library has about a hundred
	skipped map[string]int
}

const logEvery = 5 * time.Second

func (*clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	skipped, ok := l.admit(msg)
	if !ok {
		return
	}
	if skipped > 0 {
		keyvals = append(keyvals[:len(keyvals):len(keyvals)], "repeated", skipped)
	}
	l.log.Log(context.Background(), slog.LevelWarn, "kafka client warning", append([]any{"warning", msg}, keyvals...)...)
}

// admit reports whether msg is due, and how often it was held back since it last was.
func (l *clientLog) admit(msg string) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last[msg]) < logEvery {
		if l.skipped == nil {
			l.skipped = map[string]int{}
		}
		l.skipped[msg]++
		return 0, false
	}
	skipped = l.skipped[msg]
	delete(l.skipped, msg)
	l.last[msg] = now
	return skipped, true
}
