//go:build unix

package faults_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/services/all/check"
)

// TestF0_NoFault is the yardstick: the judge has nothing to say of a shop that is left alone,
// and nothing was done twice.
func TestF0_NoFault(t *testing.T) {
	r := newRig(t, simple...)
	r.startAll()
	l := r.load(40)
	lasting(size(2*time.Second, 20*time.Second))
	l.stop()
	facts, _ := r.judge(check.Expect{})
	if n := facts.Duplicates(); len(n) > 0 {
		t.Errorf("duplicates without a fault: %v", n)
	}
	r.note(1, "nothing was done")
}

// TestF1_OrderServiceKilledAtRandomPoints: a 202 is durable at whatever moment the service
// dies.
func TestF1_OrderServiceKilledAtRandomPoints(t *testing.T) {
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		order, _, _ := r.startAll(r.patientGroup())
		l := r.load(40)
		rounds := size(6, 200)
		r.every(400*time.Millisecond, rounds, func(int) { order.restart() })
		l.stop()
		r.judge(check.Expect{})
		if r.silent == 0 {
			t.Error("no request was ever in the air when the service died")
		}
		r.note(rounds, "%d requests without an answer", r.silent)
	}, simple, withDB)
}

// TestF2_OrderServiceKilledBetweenAcknowledgementAndDelete: what was published is published
// again, and has no second effect.
func TestF2_OrderServiceKilledBetweenAcknowledgementAndDelete(t *testing.T) {
	t.Run("on K S, whose write lock the test takes while a record is being written", func(t *testing.T) {
		r := newRig(t, simple...)
		order, _, _ := r.startAll(r.patientGroup())
		l := r.load(30)
		rounds := size(2, 50)
		for range rounds {
			l.reach(5)
			unlock := r.lockAfterNextPublish("order")
			order.kill()
			unlock()
			order.start()
		}
		l.stop()
		r.judgeDuplicates("/order", rounds)
	})
	t.Run("on R P, the delete swallowed on its way", func(t *testing.T) {
		r := newRig(t, allReal...)
		order, _, _ := r.startAll()
		l := r.load(30)
		rounds := size(3, 50)
		seen := make(chan struct{}, 1)
		for range rounds {
			l.reach(5)
			// A new process sends the text of each statement once; so this one is new.
			r.cables["order"].look(func(_ *pair, sent []byte) action {
				if !bytes.Contains(sent, []byte("delete from outbox where")) {
					return pass
				}
				select {
				case seen <- struct{}{}:
				default:
				}
				return swallow
			})
			order.restart()
			<-seen
			order.kill()
			r.cables["order"].look(nil)
			select {
			case <-seen: // another of the same process
			default:
			}
			order.start()
		}
		l.stop()
		r.judgeDuplicates("/order", rounds)
	})
}

// judgeDuplicates wants at least one duplicate on the wire: else the test has not done what it
// says.
func (r *rig) judgeDuplicates(source string, rounds int) {
	r.Helper()
	facts, _ := r.judge(check.Expect{})
	if n := facts.Duplicates()[source]; n < rounds {
		r.Errorf("%d duplicates of %s on the wire after %d kills, want at least one each", n, source, rounds)
	}
	r.note(rounds, "each kill between acknowledgement and delete")
}

// lockAfterNextPublish returns once records of a service have been written to the broker
// while the service cannot write to its database any more, until unlock is called.
func (r *rig) lockAfterNextPublish(service string) (unlock func()) {
	r.Helper()
	locked := make(chan func(), 1)
	cluster := r.embedded.Cluster()
	id := cluster.TopicInfo("orders").TopicID // asked for now: the hook must not ask the broker that waits for it
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		produce, ok := req.(*kmsg.ProduceRequest)
		if ok && slices.ContainsFunc(produce.Topics, func(t kmsg.ProduceRequestTopic) bool { return t.Topic == "orders" || t.TopicID == id }) {
			cluster.DropControl()
			locked <- r.lockSQLite(service)
		}
		return nil, nil, false // the broker goes on as usual
	})
	select {
	case unlock = <-locked:
	case <-time.After(patience):
		r.Fatal("nothing is published")
	}
	lasting(50 * time.Millisecond) // the acknowledgement arrives; the delete waits for the lock
	return unlock
}

// TestF3_InventoryKilledBeforeItsOffsetCommit: what was done is handed over again, and has no
// second effect.
func TestF3_InventoryKilledBeforeItsOffsetCommit(t *testing.T) {
	t.Run("on K S, the commit refused", func(t *testing.T) {
		r := newRig(t, simple...)
		_, inventory, _ := r.startAll(r.patientGroup())
		r.killAtCommits(t, inventory, func(commit func() (drop bool)) (end func()) {
			cluster := r.embedded.Cluster()
			cluster.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				if c, ok := req.(*kmsg.OffsetCommitRequest); ok && c.Group == "inventory" && commit() {
					return nil, errors.New("the client is gone"), true
				}
				return nil, nil, false
			})
			return func() {}
		})
	})
	t.Run("on R P, the commit swallowed on its way", func(t *testing.T) {
		r := newRig(t, allReal...)
		_, inventory, _ := r.startAll(static) // no session has to end in each round
		r.killAtCommits(t, inventory, func(commit func() (drop bool)) (end func()) {
			r.wire.look(func(_ *pair, sent []byte) action {
				if key, client := kafkaRequest(sent); key == int16(kmsg.OffsetCommit) && client == "inventory" && commit() {
					return cutFirst
				}
				return pass
			})
			return func() { r.wire.look(nil) }
		})
	})
}

// killAtCommits kills a service each time that it is about to commit offsets. intercept
// arranges for commit to be called then.
func (r *rig) killAtCommits(t *testing.T, victim *process, intercept func(commit func() (drop bool)) (end func())) {
	t.Helper()
	var armed atomic.Bool
	caught := make(chan struct{}, 1)
	end := intercept(func() bool {
		if !armed.CompareAndSwap(true, false) {
			return false
		}
		victim.signal(syscall.SIGKILL)
		caught <- struct{}{}
		return true
	})
	l := r.load(30)
	rounds := size(3, 50)
	again, idle := int64(0), 0
	for round := 0; round < rounds; {
		l.reach(5)
		armed.Store(true)
		select {
		case <-caught:
		case <-time.After(patience):
			t.Fatal("no commit comes")
		}
		victim.wait()
		taken := r.takenSinceCommit(victim.service)
		victim.start()
		victim.awaitReady()
		if taken == 0 { // it told of events alone that nobody here handles
			if idle++; idle > 10*rounds {
				t.Fatalf("%d commits, and none told of an event that was handled", idle)
			}
			continue
		}
		eventually(t, fmt.Sprintf("%d records that come again", taken), func() bool { return int64(victim.metric("inbox_duplicates_total")) >= taken })
		round++
		again += taken
	}
	l.stop()
	r.judge(check.Expect{})
	end()
	r.note(rounds, "%d records handed over again", again)
}

// takenSinceCommit counts what the inbox of a service that has ended has taken, and the broker will
// hand over again.
func (r *rig) takenSinceCommit(service string) (n int64) {
	r.Helper()
	cl := r.kafka()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	committed, err := kadm.NewClient(cl).FetchOffsets(ctx, service)
	if err != nil {
		r.Fatal(err)
	}
	err = r.query(service, "select cast(part as text), position from inbox", func(part string, offset int64) {
		if o, _ := committed.Lookup(consumed[service], int32(atoi(part))); offset >= o.At {
			n++
		}
	})
	if err != nil {
		r.Fatal(err)
	}
	return n
}

// kafkaRequest tells the kind of a request and the client's ID, of the first bytes of one.
func kafkaRequest(sent []byte) (key int16, client string) {
	if len(sent) < 14 {
		return -1, ""
	}
	n := int(int16(binary.BigEndian.Uint16(sent[12:])))
	if n < 0 || 14+n > len(sent) {
		return -1, ""
	}
	return int16(binary.BigEndian.Uint16(sent[4:])), string(sent[14 : 14+n])
}

// TestF4_EmailKilledAfterTheSend: the mail may come again, under the same Message-ID, and the
// ledger has it once.
func TestF4_EmailKilledAfterTheSend(t *testing.T) {
	r := newRig(t, simple...)
	_, _, email := r.startAll(r.patientGroup())
	rounds := size(1, 20)
	var armed atomic.Bool
	died := make(chan struct{}, 1)
	r.mail.misbehave(func(string, int) reply {
		if !armed.CompareAndSwap(true, false) {
			return reply{}
		}
		return reply{cut: true, after: func() { email.signal(syscall.SIGKILL); died <- struct{}{} }}
	})
	l := r.load(20)
	for range rounds {
		l.reach(10)
		armed.Store(true)
		select {
		case <-died:
		case <-time.After(patience):
			t.Fatal("no mail is sent")
		}
		email.wait()
		email.start()
		email.awaitReady()
	}
	l.stop()
	facts, _ := r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	if n := facts.MailRepeats(); n < rounds {
		t.Errorf("%d mails came twice after %d kills behind a send, want at least one each", n, rounds)
	}
	counts := map[string]int{}
	for _, m := range facts.Mails {
		if counts[m.ID]++; counts[m.ID] > 1+rounds {
			t.Errorf("the mail %s came %d times", m.ID, counts[m.ID])
		}
	}
	r.note(rounds, "each kill behind the server's yes")
}

// mailsAtOnce is how many mails the service sends at a time: so many may be under way, and
// come again, at each kill.
const mailsAtOnce = 16

// TestF5_AllKilledAgainAndAgain: progress and safety, and calm soon after the last kill.
func TestF5_AllKilledAgainAndAgain(t *testing.T) {
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		r.startAll(r.patientGroup())
		l := r.load(20)
		rounds := size(2, 30)
		r.every(2*time.Second, rounds, func(int) {
			for _, p := range r.processes {
				p.kill()
			}
			for _, p := range r.processes {
				p.start()
			}
		})
		last := time.Now()
		l.stop()
		r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
		if calm := time.Since(last); calm > 30*time.Second {
			t.Errorf("quiet %v after the last kill, want 30 s", calm)
		}
		r.note(rounds, "quiet %v after the last kill", time.Since(last).Round(100*time.Millisecond))
	}, simple, withDB, allReal)
}

// TestF7_StoppedUnderLoad: a stop finishes what is in hand, and nothing finished is done or
// published again.
func TestF7_StoppedUnderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		r.startAll()
		l := r.load(40)
		rounds := size(3, 30)
		slowest, again := time.Duration(0), 0.0
		r.every(500*time.Millisecond, rounds, func(i int) {
			p := r.processes[i%3]
			again += p.metric("inbox_duplicates_total")
			slowest = max(slowest, p.stop())
			p.start()
			p.awaitReady()
		})
		l.stop()
		facts, _ := r.judge(check.Expect{})
		for _, p := range r.processes {
			again += p.metric("inbox_duplicates_total")
		}
		if d := facts.Duplicates(); slowest > 5*time.Second || again > 0 || len(d) > 0 {
			t.Errorf("the slowest stop took %v, %v records were handed over again, duplicates %v; want at most 5 s, and none", slowest, again, d)
		}
		r.note(rounds, "slowest stop %v, %.0f records handed over again", slowest.Round(time.Millisecond), again)
	}, simple, allReal)
}

// TestF9_EmbeddedBrokerKilled: the broker forgets what its producers sent last, so that there
// may be duplicates; nothing that it has acknowledged is lost.
func TestF9_EmbeddedBrokerKilled(t *testing.T) {
	r := newRig(t, onApart, onSQLite)
	r.startAll()
	l := r.load(40)
	rounds := size(2, 8)
	r.every(1500*time.Millisecond, rounds, func(int) {
		r.broker.kill()
		r.broker.start()
	})
	l.stop()
	r.judge(check.Expect{})
	r.note(rounds, "broker killed")
}
