//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/keyline/services/all/check"
)

// TestF10_RealBrokerKilled: what a broker has acknowledged survives its process.
func TestF10_RealBrokerKilled(t *testing.T) {
	r := newRig(t, allReal...)
	r.startAll()
	l := r.load(40)
	rounds := size(1, 10)
	r.every(4*time.Second, rounds, func(int) {
		r.broker.kill()
		lasting(time.Duration(r.rand.Int64N(int64(3 * time.Second))))
		r.broker.start()
	})
	l.reach(20)
	l.stop()
	r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	r.note(rounds, "broker killed")
}

// TestF11_BrokerGone: orders are taken all the same, as fast as before, and what has piled up
// goes out when the broker is back.
func TestF11_BrokerGone(t *testing.T) {
	r := newRig(t, allReal...)
	r.startAll()
	l := r.load(30)
	l.reach(30)
	r.percentile(0)
	r.broker.kill()
	gone := size(10*time.Second, 60*time.Second)
	lasting(gone)
	p99, n := r.percentile(.99)
	r.broker.start()
	back := time.Now()
	l.reach(10)
	l.stop()
	r.judge(check.Expect{MailRepeats: mailsAtOnce})
	drained := time.Since(back)
	if want := size(250*time.Millisecond, 50*time.Millisecond); n < 100 || p99 > want && !raceDetector || drained > 30*time.Second {
		t.Errorf("%d orders while the broker was gone, %v at the 99th percentile; quiet %v after it was back; want 100, %v, 30 s", n, p99, drained, want)
	}
	r.note(1, "gone for %v: %d POSTs meanwhile, %v at the 99th percentile, quiet %v after", gone, n, p99.Round(time.Millisecond), drained.Round(100*time.Millisecond))
}

// TestF29_BrokerCutOff: nothing passes between the services and the broker, and nobody is
// told.
func TestF29_BrokerCutOff(t *testing.T) {
	r := newRig(t, allReal...)
	r.startAll()
	l := r.load(30)
	rounds, cut := size(1, 4), size(12*time.Second, 30*time.Second)
	for range rounds {
		l.reach(20)
		r.wire.hold(true)
		lasting(cut)
		r.wire.hold(false)
	}
	l.reach(20)
	l.stop()
	r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	r.note(rounds, "cut off for %v each", cut)
}

// TestF32_RebalanceStorm: members join and leave every second.
func TestF32_RebalanceStorm(t *testing.T) {
	r := newRig(t, allReal...)
	r.startAll()
	var extra []*process
	for range 2 {
		for _, s := range services {
			p := r.add(s)
			p.start()
			extra = append(extra, p)
		}
	}
	for _, p := range extra {
		p.awaitReady()
	}
	l := r.load(20)
	rounds := size(8, 60)
	r.every(time.Second, rounds, func(int) {
		if p := extra[r.rand.IntN(len(extra))]; p.alive() {
			p.stop()
		} else {
			p.start()
		}
	})
	l.stop()
	for _, p := range extra {
		if !p.alive() {
			p.start()
			p.awaitReady()
		}
	}
	facts, _ := r.judge(check.Expect{})
	if d := facts.Duplicates(); len(d) > 0 {
		t.Errorf("clean stops have left duplicates: %v", d)
	}
	slowest := r.slowestOrder()
	if slowest > 5*time.Second && !raceDetector {
		t.Errorf("an order took %v from its placing to its end, want 5 s", slowest)
	}
	r.note(rounds, "the slowest order took %v", slowest.Round(10*time.Millisecond))
}

// slowestOrder is the longest time between the placing and the settling of an order.
func (r *rig) slowestOrder() (slowest time.Duration) {
	r.Helper()
	at := "http://" + r.replicas("order")[0].public + "/v1/orders/"
	seen := map[string]bool{}
	for _, q := range r.requests {
		if seen[q.OrderID] {
			continue
		}
		seen[q.OrderID] = true
		var o struct {
			History []struct {
				Step string
				At   time.Time
			}
		}
		r.getJSON(at+q.OrderID, &o)
		i := slices.IndexFunc(o.History, func(s struct {
			Step string
			At   time.Time
		}) bool {
			return s.Step == "confirmed" || s.Step == "rejected" || s.Step == "cancelled"
		})
		if i > 0 {
			slowest = max(slowest, o.History[i].At.Sub(o.History[0].At))
		}
	}
	return slowest
}

// TestF40_EverythingAgain: all topics are read again from their beginning, and nothing
// happens a second time.
func TestF40_EverythingAgain(t *testing.T) {
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		r.startAll()
		l := r.load(40)
		lasting(size(1500*time.Millisecond, 20*time.Second))
		l.stop()
		facts, _ := r.judge(check.Expect{})
		mails, records, taken := len(facts.Mails), len(facts.Records), int64(0)
		for _, s := range services {
			taken += r.count(s, "inbox")
		}
		rounds := size(1, 3)
		for range rounds {
			for _, p := range r.processes {
				p.stop()
			}
			r.rewind()
			for _, p := range r.processes {
				p.start()
				p.awaitReady()
			}
			r.judge(check.Expect{}) // it waits until the groups have caught up
			again := 0.0
			for _, p := range r.processes {
				again += p.metric("inbox_duplicates_total")
			}
			if again < float64(taken) {
				t.Errorf("%.0f events came again, want %d", again, taken)
			}
		}
		for _, p := range r.processes {
			r.replay(p)
		}
		facts, _ = r.judge(check.Expect{})
		if len(facts.Mails) != mails || len(facts.Records) != records {
			t.Errorf("%d mails and %d records, %d and %d before", len(facts.Mails), len(facts.Records), mails, records)
		}
		r.note(rounds, "%d events handed over again each time, 0 mails; an operator's replay refused", taken)
	}, simple, allReal)
}

// repeatable are the types whose handlers say that they may run again, by service.
var repeatable = map[string]string{"email": "shop.order.OrderPlaced"} // it notes an address, again

// replay asks for everything again, as an operator does, and wants all types refused but those
// that are declared repeatable.
func (r *rig) replay(p *process) {
	r.Helper()
	ask := map[string]any{"topic": consumed[p.service], "from_time": "2000-01-01T00:00:00Z", "limit": 10_000, "dry_run": false}
	status, text, err := r.do(r.ctx, http.MethodPost, "http://"+p.help+"/admin/replay", ask)
	var answer struct {
		Queued  int
		Matched map[string]int
		Refused map[string]string
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &answer)
	}
	allowed := repeatable[p.service]
	if err != nil || status != http.StatusOK || len(answer.Matched) == 0 || answer.Queued != answer.Matched[allowed] {
		r.Errorf("a replay in %s was answered %d %s %v, want nothing queued but %q", p.name, status, text, err, allowed)
	}
	for typ := range answer.Matched {
		if answer.Refused[typ] == "" && typ != allowed {
			r.Errorf("a replay of %s in %s was not refused: %s", typ, p.name, text)
		}
	}
}

// rewind sets all groups to the beginning of their topics. No service runs.
func (r *rig) rewind() {
	r.Helper()
	cl := r.kafka()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	ends, err := r.ends()
	if err != nil {
		r.Fatal(err)
	}
	for _, s := range services {
		at := kadm.Offsets{}
		for p := int32(0); ; p++ {
			if _, ok := ends[fmt.Sprintf("%s/%d", consumed[s], p)]; !ok {
				break
			}
			at.AddOffset(consumed[s], p, 0, -1)
		}
		if err := kadm.NewClient(cl).CommitAllOffsets(ctx, s, at); err != nil {
			r.Fatal(err)
		}
	}
}
