package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// upsetting upsets a group of members, processes of their own, while a producer goes on at its
// rate whatever they do.
type upsetting struct {
	*rig
	rate, keys int
}

func memberWorks(ctx context.Context, r *rig) ([]work, error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	plain := &upsetting{r, r.plan.members, 600}
	// With an inbox each event's effect is a row; the database must have the time for that.
	once := &upsetting{r, max(50, r.plan.members/20), 60}
	sides := []side{
		{"keyline", "", plain.side("member", 0, false)},
		{"kgo, its defaults", "", plain.side("member-kgo", 0, false)},
	}
	if !r.plan.short {
		sides = append(sides, side{fmt.Sprintf("keyline, a heartbeat every %s", quickHeartbeat), "", plain.side("member", quickHeartbeat, false)})
	}
	return []work{{
		name: fmt.Sprintf("B13 members, %d rec/s", plain.rate), n: 1, rounds: 1, metrics: upsetMetrics, sides: sides,
	}, {
		name: fmt.Sprintf("B13 members with an inbox, %d rec/s", once.rate), n: 1, rounds: 1,
		metrics: append([]metric{{"effects again", "events", "moonshot 0", false}}, upsetMetrics...),
		// A file of SQLite belongs to one process.
		sides: []side{{"keyline", "", r.onPostgres(once.side("member-inbox", 0, true))}},
	}}, nil
}

// quickHeartbeat is below the default: it is at a heartbeat that a member learns of the others.
const quickHeartbeat = 200 * time.Millisecond

// upsetMetrics are the gap and the records again of each phase.
var upsetMetrics = []metric{
	{"add one, longest gap of a key", "ms", "", false}, {"add one, handled again", "records", "", false},
	{"stop one, longest gap of a key", "ms", "<= 3000, moonshot 300", false}, {"stop one, handled again", "records", "moonshot 0", false},
	{"kill one, longest gap of a key", "ms", "the session: 10 s, kgo's 45 s", false}, {"kill one, handled again", "records", "", false},
}

func (u *upsetting) side(role string, heartbeat time.Duration, effects bool) runFunc {
	return func(ctx context.Context, _ int, w *watch) error {
		return u.broker.onTopic(ctx, func(topic string) error {
			told := memberTold{Broker: u.broker.addr, Group: u.broker.newGroup(topic), Topic: topic, Registry: u.registry, Heartbeat: heartbeat}
			if !effects {
				return u.upset(ctx, role, told, nil, w)
			}
			return u.onTables(ctx, func(url string, d *db.DB) error {
				told.Database = url
				committed := func(ctx context.Context) ([]int, error) {
					rows, err := d.Query(ctx, `select distinct number from effect`)
					return db.Collect(rows, err, func(r *sql.Rows, n *int) error { return r.Scan(n) })
				}
				if err := u.upset(ctx, role, told, committed, w); err != nil {
					return err
				}
				var again float64
				err := d.QueryRow(ctx, `select count(*) - count(distinct number) from effect`).Scan(&again)
				w.values = append([]float64{again}, w.values...)
				return err
			}, `create table effect (number bigint not null)`)
		})
	}
}

// upset tells what the upsets did.
func (u *upsetting) upset(ctx context.Context, role string, told memberTold, committed func(context.Context) ([]int, error), w *watch) error {
	g := &group{role: role, told: told, committed: committed, last: map[int]int64{}, keys: u.keys, calm: u.plan.calm}
	w.start()
	sent, begins, err := u.run(ctx, g)
	if err := errors.Join(err, g.endAll()); err != nil {
		return err
	}
	w.stop()
	all, lost := upsets(sent, u.keys, g.seen, begins)
	if lost > 0 {
		return fmt.Errorf("%d of %d records were never handled", lost, len(sent))
	}
	values := make([]float64, 0, len(upsetMetrics))
	for _, p := range all {
		values = append(values, float64(p.gap)/1e6, float64(p.again))
	}
	for len(values) < cap(values) {
		values = append(values, math.NaN()) // nobody was killed
	}
	w.tell(values...)
	return nil
}

// run upsets the group in one way after the other, and returns when the records were sent, and
// when each upset began.
func (u *upsetting) run(ctx context.Context, g *group) (sent []int64, begins []int64, err error) {
	for range 3 {
		if err := g.add(); err != nil {
			return nil, nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	produce, enough := context.WithCancel(ctx)
	type result struct {
		sent []int64
		err  error
	}
	produced := make(chan result, 1)
	go func() {
		sent, err := u.produceAt(produce, g.told.Topic)
		produced <- result{sent, err}
	}()
	steps := []func() error{g.add, func() error { return g.stop(0) }}
	if !u.plan.short { // it takes a session's length
		steps = append(steps, func() error { return g.killOne(1) })
	}
	err = g.settled(ctx, time.Now(), 3)
	for _, step := range steps {
		if err != nil {
			break
		}
		begins = append(begins, time.Now().UnixNano())
		if err = step(); err == nil {
			err = g.settled(ctx, time.Now(), 0)
		}
	}
	enough()
	r := <-produced
	if err = errors.Join(err, r.err); err == nil {
		err = g.handled(ctx, len(r.sent))
	}
	return r.sent, begins, err
}

// produceAt sends records at the rate until ctx ends, those that are due at each tick; their
// numbers go round the keys.
func (u *upsetting) produceAt(ctx context.Context, topic string) (sent []int64, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(u.broker.addr), kgo.DisableClientMetrics(), kgo.ProducerLinger(time.Millisecond),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MaxBufferedRecords(1_000_000))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	templates := make([]*kgo.Record, u.keys)
	for i := range templates {
		data := schemas.OrderCancelled{OrderID: fmt.Sprintf("order-%d", i), Reason: schemas.CancellationReasonCustomer, CancelledAt: started}
		if templates[i], err = u.numbered(topic, i, data); err != nil {
			return nil, err
		}
	}
	var failed error
	var once sync.Once
	begun := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for due := int(time.Since(begun).Seconds() * float64(u.rate)); len(sent) < due; {
			r := *templates[len(sent)%u.keys]
			r.Headers = withID(r.Headers, strconv.Itoa(len(sent)))
			sent = append(sent, time.Now().UnixNano())
			cl.Produce(context.WithoutCancel(ctx), &r, func(_ *kgo.Record, err error) {
				if err != nil {
					once.Do(func() { failed = err })
				}
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	err = cl.Flush(context.WithoutCancel(ctx)) // then every promise has been called
	return sent, errors.Join(err, failed)
}

// withID gives headers another ID.
func withID(headers []kgo.RecordHeader, id string) []kgo.RecordHeader {
	headers = slices.Clone(headers)
	for i := range headers {
		if headers[i].Key == event.HeaderID {
			headers[i].Value = []byte(id)
		}
	}
	return headers
}
