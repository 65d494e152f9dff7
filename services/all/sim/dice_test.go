//go:build synctests

package sim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// dice are all that a run leaves to chance. They are the seed's alone.
type dice struct {
	mu   sync.Mutex
	r    *rand.Rand
	calm bool // no more surprises: the run is healing

	net, db time.Duration // what is usual
	spikes  float64       // how often a delay is twenty times as long
}

func newDice(seed uint64) *dice {
	d := &dice{r: rand.New(rand.NewPCG(seed, 0x6b65796c696e65))}
	// Never 0: what goes round in circles would stop the clock.
	usual := []time.Duration{20 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 4 * time.Millisecond}
	d.net, d.db = usual[d.n(len(usual))], usual[d.n(len(usual))]
	d.spikes = []float64{0, 0.001, 0.01}[d.n(3)]
	return d
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Float64() < p
}

// between is a time of that range, short ones more often than long ones.
func (d *dice) between(least, most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.r.Float64()
	return least + time.Duration(f*f*float64(most-least))
}

func (d *dice) delay(usual time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if usual == 0 {
		return 0
	}
	f := d.r.ExpFloat64()
	if !d.calm && d.r.Float64() < d.spikes {
		f *= 20
	}
	return time.Duration(f * float64(usual))
}

func (d *dice) netDelay() time.Duration { return d.delay(d.net) }
func (d *dice) dbDelay() time.Duration  { return d.delay(d.db) }

func (d *dice) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calm = true
}

// pause waits for d, and returns ctx's error if that ends first.
func (w *world) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// journal is the log of a run's events, in virtual time.
type journal struct {
	mu    sync.Mutex
	begun time.Time
	text  bytes.Buffer
	kinds map[string]int
	live  io.Writer // gets the lines at once; nil: nobody does
}

func (j *journal) line(who, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.TrimSuffix(fmt.Sprintf(format, args...), "\n")
	if j.live != nil {
		fmt.Fprintf(j.live, "%10.6f %-12s %s\n", time.Since(j.begun).Seconds(), who, text)
	}
	fmt.Fprintf(&j.text, "%10.6f %-12s %s\n", time.Since(j.begun).Seconds(), who, text)
}

// count notes a fault of a kind that has really happened.
func (j *journal) count(kind string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.kinds[kind]++
}

func (j *journal) hash() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	sum := sha256.Sum256(j.text.Bytes())
	return hex.EncodeToString(sum[:8])
}

// writer is the journal as the log of a process. Times are the journal's own.
func (j *journal) writer(who string) logWriter { return logWriter{j, who} }

type logWriter struct {
	j   *journal
	who string
}

func (l logWriter) Write(p []byte) (int, error) {
	_, rest, ok := strings.Cut(string(p), " ") // the time
	if !ok {
		rest = string(p)
	}
	l.j.line(l.who, "%s", rest)
	return len(p), nil
}
