package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// waiting is two topics: of events that cannot be handled, each of another key, and of others
// that can. A process of its own takes the former, and then as many of the latter as it can.
type waiting struct {
	*rig
	stuck, others string // topics
	keys          int
	retried       bool
}

// waitingTold is what such a process needs to know.
type waitingTold struct {
	Registry, Broker, Database, Group string
	Stuck, Others                     string // topics; no keys wait without the former
	Keys, Flow                        int    // records of each
	Retried                           bool   // the handler's error is one that is tried again
}

// waitingSaid is what it has found.
type waitingSaid struct {
	Peak float64 // MiB of memory, at most
	Heap float64 // MiB that are in use at the end
	Held float64 // bytes in the tables of waiting, for each key
	Rate float64 // of the others, per second
}

func waitingWorks(ctx context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	keys, others := r.plan.waiting, r.plan.waiting*2/5
	s := waiting{rig: r, keys: keys}
	if s.stuck, err = r.newTopic(ctx, partitions); err != nil {
		return nil, err
	}
	if s.others, err = r.newTopic(ctx, partitions); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(5, 6))
	if err := s.fill(ctx, s.stuck, 0, keys, func(i int) event.Payload { return newOrder(random, uint64(i)) }); err != nil {
		return nil, err
	}
	if err := s.fill(ctx, s.others, keys, others, func(int) event.Payload {
		o := newOrder(random, random.Uint64N(ringSize))
		return schemas.OrderCancelled{OrderID: o.OrderID + "-other", Reason: schemas.CancellationReasonCustomer, CancelledAt: o.PlacedAt}
	}); err != nil {
		return nil, err
	}
	for _, retried := range []bool{false, true} {
		s := s
		s.retried = retried
		name := fmt.Sprintf("B11 %d keys wait, unavailable", keys)
		if retried {
			name = fmt.Sprintf("B11 %d keys wait, each tried again", keys)
		}
		works = append(works, work{
			name: name, n: others, rounds: 1,
			metrics: []metric{
				{"memory at most", "MiB", "<= 256", false},
				{"more than without them", "MiB", "moonshot: does not grow", false},
				{"heap in use", "MiB", "", false},
				{"tables, by key", "B", "", false},
				{"others' rate", "k/s", "", true},
				{"others' rate, of that without", "", "moonshot >= 0.8", true},
			},
			sides: []side{
				{"keyline", "", s.side("waiting")},
				{"goroutine per key, kgo", "", s.side("waiting-in-memory")},
			},
		})
	}
	return works, nil
}

// fill writes n events. The topics are one to the inbox, so that no number may be there twice.
func (s *waiting) fill(ctx context.Context, topic string, first, n int, next func(int) event.Payload) error {
	return s.broker.write(ctx, n, func(i int) (*kgo.Record, error) { return s.numbered(topic, first+i, next(i)) })
}

// side runs twice, without keys that wait and with them.
func (s waiting) side(role string) runFunc {
	return func(ctx context.Context, n int, w *watch) error {
		w.start()
		without, err := s.once(ctx, role, "", n)
		if err != nil {
			return err
		}
		with, err := s.once(ctx, role, s.stuck, n)
		if err != nil {
			return err
		}
		w.stop()
		if with.Held == 0 { // it has no tables, and does nothing with the others but to count them
			with.Held, with.Rate = math.NaN(), math.NaN()
		}
		w.tell(with.Peak, with.Peak-without.Peak, with.Heap, with.Held, with.Rate/1e3, with.Rate/without.Rate)
		return nil
	}
}

func (s *waiting) once(ctx context.Context, role, stuck string, n int) (said waitingSaid, err error) {
	err = s.onDatabase(ctx, func(url string) (err error) {
		said, err = ask[waitingSaid](role, waitingTold{
			Registry: s.registry, Broker: s.broker.addr, Database: url, Group: s.broker.newGroup(s.others),
			Stuck: stuck, Others: s.others, Keys: s.keys, Flow: n, Retried: s.retried,
		})
		return err
	})
	return said, err
}

// pace counts the others' events, and takes the time from the begin of the first to the last.
type pace struct {
	*progress
	began atomic.Int64
}

func newPace(want int) *pace { return &pace{progress: newProgress(want)} }

func (p *pace) begin() { p.began.CompareAndSwap(0, time.Now().UnixNano()) }

// rate waits for the last one; it is per second.
func (p *pace) rate(ctx context.Context) (float64, error) {
	err := p.wait(ctx)
	return float64(p.want) / time.Since(time.Unix(0, p.began.Load())).Seconds(), err
}

// memory is what the process has taken at most, and what it has in use, in MiB.
func memory() (peak, heap float64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(procStatus(os.Getpid(), "VmHWM")) / 1024, float64(m.HeapAlloc) / (1 << 20)
}
