package kafka

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog passes on what the client library warns about, each message once in logEvery: a
// broker that is away would have it repeat itself with every attempt of every connection.
//
// The library calls errors what it goes on to retry, so nothing here is above a warning; what
// is given up, this package reports itself.
type clientLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by message, of which the library has about a hundred
}

const logEvery = 5 * time.Second

func (*clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last[msg]) >= logEvery {
		l.last[msg] = now
		l.log.Log(context.Background(), slog.LevelWarn, "kafka client warning", append([]any{"warning", msg}, keyvals...)...)
	}
}
