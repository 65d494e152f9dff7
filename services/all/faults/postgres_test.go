//go:build unix

package faults_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/keyline/pkg/event"
	"example.com/keyline/services/all/check"
)

// TestF6_ConsumerStoppedPastItsSession: a process that wakes up after others have taken its
// work over writes nothing.
func TestF6_ConsumerStoppedPastItsSession(t *testing.T) {
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		r.startAll()
		for _, s := range services {
			p := r.add(s)
			p.start()
			p.awaitReady()
		}
		l := r.load(30)
		victims := size([]string{"inventory"}, []string{"inventory", "order", "email", "inventory", "order", "inventory"})
		for i, s := range victims {
			l.reach(20)
			p := r.replicas(s)[(i+1)%2] // the first one is asked by the judge
			p.signal(syscall.SIGSTOP)
			if !within(30*time.Second, func() bool { return r.members(s) == 1 }) {
				t.Errorf("the group %s still has %d members", s, r.members(s))
			}
			l.reach(20) // the other one does its work now
			p.signal(syscall.SIGCONT)
			if !within(30*time.Second, func() bool { return r.members(s) == 2 }) {
				t.Errorf("%s does not come back into its group", p.name)
			}
		}
		l.stop()
		r.judge(check.Expect{MailRepeats: len(victims) * mailsAtOnce})
		r.note(len(victims), "each stopped until its session had ended, and continued")
	}, withDB, allReal)
}

// members is how many members a consumer group has; -1 while nobody tells.
func (r *rig) members(group string) int {
	cl := r.kafka()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	described, err := kadm.NewClient(cl).DescribeGroups(ctx, group)
	if err != nil || described.Error() != nil || described[group].State != "Stable" {
		return -1
	}
	return len(described[group].Members)
}

// TestF20_PostgresKilled: all connections die at once, and what was committed is there again.
func TestF20_PostgresKilled(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	l := r.load(40)
	rounds := size(2, 15)
	r.every(2*time.Second, rounds, func(int) {
		r.postgres.kill()
		r.postgres.start()
	})
	l.reach(20)
	l.stop()
	r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	r.note(rounds, "server killed, %d requests without an answer", r.silent)
}

// TestF21_BackendsTerminated: connections die in the middle of transactions, all the time.
func TestF21_BackendsTerminated(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	l := r.load(40)
	rounds, ended, busy := size(20, 200), 0, 0
	r.every(150*time.Millisecond, rounds, func(int) {
		var all, inside int
		err := r.postgres.admin.QueryRowContext(r.ctx, `select count(*), count(*) filter (where inside) from (
			select state <> 'idle' as inside, pg_terminate_backend(pid) from pg_stat_activity
			where pid <> pg_backend_pid() and backend_type = 'client backend' and (state <> 'idle' or random() < 0.3)) t`).Scan(&all, &inside)
		if err != nil {
			t.Error(err)
		}
		ended, busy = ended+all, busy+inside
	})
	l.stop()
	r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	if busy == 0 {
		t.Error("no backend was ended in the middle of anything")
	}
	r.note(rounds, "%d backends ended, %d of them at work", ended, busy)
}

// commitMessage is how a commit goes to PostgreSQL, often behind statements that go with it: pgx
// names what it has prepared by its text, and binds the name to the portal without one.
var commitMessage = func() []byte {
	digest := sha256.Sum256([]byte("commit"))
	return fmt.Appendf(nil, "\x00stmtcache_%x\x00", digest[:24])
}()

// TestF22_CommitOutcomeUnknown: the connection is cut while a commit is under way, before it
// arrives or behind it.
func TestF22_CommitOutcomeUnknown(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	var before, after atomic.Int64
	for _, s := range services {
		chance := r.draw()
		var mu sync.Mutex
		r.cables[s].look(func(_ *pair, sent []byte) action {
			if !bytes.Contains(sent, commitMessage) {
				return pass
			}
			mu.Lock()
			defer mu.Unlock()
			switch chance.IntN(40) {
			case 0:
				before.Add(1)
				return cutFirst
			case 1, 2:
				after.Add(1)
				return cutLast
			}
			return pass
		})
	}
	l := r.load(40)
	want := size(int64(20), 400)
	eventually(t, "commits are cut", func() bool { return before.Load()+after.Load() >= want && before.Load() > 0 && after.Load() > 0 })
	for _, s := range services {
		r.cables[s].look(nil)
	}
	l.stop()
	r.judge(check.Expect{MailRepeats: int(want)})
	r.note(int(before.Load()+after.Load()), "%d commits cut before they arrived, %d behind", before.Load(), after.Load())
}

// TestF23_Deadlocks: two writers that are not ours lock articles in the opposite order.
func TestF23_Deadlocks(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	l := r.load(40)
	ctx, cancel := context.WithCancel(r.ctx)
	var foreign atomic.Int64 // deadlocks that hit a writer of ours here, not a service
	var writers sync.WaitGroup
	for range 2 {
		chance := r.draw()
		writers.Go(func() {
			for ctx.Err() == nil {
				a, b := chance.IntN(4), chance.IntN(4)
				if r.lockArticles(ctx, sku(max(a, b)), sku(min(a, b)), time.Duration(chance.IntN(30))*time.Millisecond) {
					foreign.Add(1)
				}
			}
		})
	}
	want := size(int64(2), 50)
	deadlocks := func() (n int64) {
		if err := r.postgres.admin.QueryRowContext(r.ctx, "select sum(deadlocks) from pg_stat_database").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	eventually(t, "deadlocks that hit a service", func() bool { return deadlocks()-foreign.Load() >= want })
	cancel()
	writers.Wait()
	l.stop()
	r.judge(check.Expect{})
	r.note(int(want), "%d deadlocks, %d of them hit the other writers", deadlocks(), foreign.Load())
}

// lockArticles locks two articles, one after the other, and reports whether that was the
// deadlock's victim.
func (r *rig) lockArticles(ctx context.Context, first, second string, pause time.Duration) (victim bool) {
	tx, err := r.postgres.admin.BeginTx(ctx, nil)
	if err != nil {
		return false
	}
	defer func() { _ = tx.Rollback() }() // it has written nothing
	lock := "select 1 from inventory_service.stock where sku = $1 for update"
	if _, err := tx.ExecContext(ctx, lock, first); err != nil {
		return false
	}
	lasting(pause)
	_, err = tx.ExecContext(ctx, lock, second)
	return err != nil && bytes.Contains([]byte(err.Error()), []byte("40P01"))
}

// TestF24_TransactionHeldOpen: a writer whose transaction stays open holds up its own key and
// nothing else.
func TestF24_TransactionHeldOpen(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	tx, err := r.postgres.admin.BeginTx(r.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	// An event of a key that nobody else has, drawn before those of all others.
	if _, err := tx.ExecContext(r.ctx, `insert into order_service.outbox (topic, key, value, headers) values ('orders', 'held', null, ''::bytea)`); err != nil {
		t.Fatal(err)
	}
	hold := size(4*time.Second, 30*time.Second)
	l := r.load(40)
	lasting(hold)
	l.stop()
	if err := tx.Rollback(); err != nil {
		t.Errorf("the transaction did not stay open: %v", err)
	}
	r.judge(check.Expect{})
	lags := r.relayLags()
	p99 := lags[len(lags)*99/100]
	if want := size(time.Second, 100*time.Millisecond); p99 > want && !raceDetector {
		t.Errorf("other keys' events were published %v after they happened at the 99th percentile, want %v", p99, want)
	}
	r.note(1, "a transaction open for %v; others' events published after %v at the 50th, %v at the 99th percentile", hold,
		lags[len(lags)/2].Round(time.Millisecond), p99.Round(time.Millisecond))
}

// relayLags are the times between an event and its record, sorted.
func (r *rig) relayLags() (lags []time.Duration) {
	r.Helper()
	for _, rec := range r.raw("orders") {
		at, err := time.Parse(time.RFC3339Nano, headerOf(rec, event.HeaderTime))
		if err != nil {
			r.Fatal(err)
		}
		lags = append(lags, rec.Timestamp.Sub(at))
	}
	if len(lags) == 0 {
		r.Fatal("nothing was published")
	}
	slices.Sort(lags)
	return lags
}

// TestF26_TwoRelays: two relays publish the same outbox, because the lease is taken from its
// owner again and again; and its owner is stopped while another goes on.
func TestF26_TwoRelays(t *testing.T) {
	r := newRig(t, withDB...)
	r.startAll()
	p := r.add("order")
	p.start()
	p.awaitReady()
	l := r.load(40)
	rounds, owners := size(40, 400), map[string]bool{}
	r.every(60*time.Millisecond, rounds, func(int) {
		var owner string
		err := r.postgres.admin.QueryRowContext(r.ctx, "update order_service.outbox_lease set until = 0 returning owner").Scan(&owner)
		if err != nil {
			t.Error(err)
		}
		owners[owner] = true
	})
	stops := size(1, 10)
	for range stops {
		r.stopRelay(r.replicas("order")[0], r.replicas("order")[1])
		l.reach(20)
		r.replicas("order")[1].signal(syscall.SIGCONT)
		l.reach(20)
	}
	l.stop()
	facts, _ := r.judge(check.Expect{})
	if n := facts.Duplicates()["/order"]; n == 0 || len(owners) < 2 {
		t.Errorf("%d duplicates and %d owners: there were never two relays", n, len(owners))
	}
	r.note(rounds+stops, "the lease taken away %d times, its owner stopped %d times", rounds, stops)
}

// stopRelay stops the process b while its relay is the one on duty, and returns when that of a
// has taken over.
func (r *rig) stopRelay(a, b *process) {
	r.Helper()
	a.signal(syscall.SIGSTOP)
	if _, err := r.postgres.admin.ExecContext(r.ctx, "update order_service.outbox_lease set until = 0"); err != nil {
		r.Fatal(err)
	}
	eventually(r, "the other relay is on duty", func() bool {
		var until int64
		err := r.postgres.admin.QueryRowContext(r.ctx, "select until from order_service.outbox_lease").Scan(&until)
		return err == nil && until > 0
	})
	b.signal(syscall.SIGSTOP)
	owner := r.relayOwner()
	a.signal(syscall.SIGCONT)
	eventually(r, "the relay on duty changes", func() bool { return r.relayOwner() != owner })
}

// relayOwner is who has the lease of the order service's relay.
func (r *rig) relayOwner() (owner string) {
	r.Helper()
	if err := r.postgres.admin.QueryRowContext(r.ctx, "select owner from order_service.outbox_lease").Scan(&owner); err != nil && err != sql.ErrNoRows {
		r.Error(err)
	}
	return owner
}

// TestF31_DatabaseCutOff: a service that holds records and does not reach its database waits,
// without computing, and stays in its group or leaves it cleanly. In the end, every connection
// that is open is never answered again, as behind a pooler that hangs, and new ones work.
func TestF31_DatabaseCutOff(t *testing.T) {
	r := newRig(t, withDB...)
	_, inventory, email := r.startAll()
	l := r.load(30)
	rounds, cut := size(1, 3), size(8*time.Second, 30*time.Second)
	most := 0.0
	for range rounds {
		l.reach(20)
		victims := []*process{inventory, email}
		before := []time.Duration{inventory.cpu(), email.cpu()}
		for _, p := range victims {
			r.cables[p.service].hold(true)
		}
		lasting(cut)
		for i, p := range victims {
			most = max(most, float64(p.cpu()-before[i])/float64(cut))
			r.cables[p.service].hold(false)
		}
	}
	l.reach(20)
	stranded, begun := 0, time.Now()
	for _, cable := range r.cables {
		stranded += cable.strand()
	}
	l.reach(20)
	l.stop()
	r.judge(check.Expect{MailRepeats: (rounds + 1) * mailsAtOnce})
	if took := time.Since(begun); took > 90*time.Second {
		t.Errorf("%v passed until all was done with %d connections that nobody answers", took, stranded)
	}
	if most >= 0.5 {
		t.Errorf("a service used %.0f %% of a processor while its database was away, want less than 50", 100*most)
	}
	r.note(rounds, "cut off for %v each, %.0f %% of a processor at most; %d connections left without an answer", cut, 100*most, stranded)
}
