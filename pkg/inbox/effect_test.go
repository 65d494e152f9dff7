package inbox_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// mailing is an effect in three steps, which notes what happens.
type mailing struct {
	*rig
	begins, ends atomic.Int64 // calls
	underWay     atomic.Int64 // effects that have begun

	mu      sync.Mutex
	sent    []string // in the order of each key
	failing map[string]error
	hold    chan struct{} // if set, effects wait for it
}

func (m *mailing) failure(what string, s step) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failing[fmt.Sprintf("%s %s%d", what, s.Agg, s.N)]
}

func newMailing(t *testing.T, cfg inbox.Config) *mailing {
	m := &mailing{rig: newRig(t, cfg), failing: map[string]error{}}
	m.register(m.Inbox)
	return m
}

func (m *mailing) register(in *inbox.Inbox) {
	inbox.HandleEffect(in, inbox.Effect[step, *string]{
		Begin: func(_ context.Context, _ *db.Tx, all []event.Event[step]) ([]*string, error) {
			m.begins.Add(1)
			begun := make([]*string, len(all))
			for i, e := range all {
				if err := m.failure("begin", e.Data); err != nil {
					return nil, err
				}
				begun[i] = new(e.Meta.ID)
			}
			return begun, nil
		},
		Do: func(ctx context.Context, e event.Event[step], begun *string) error {
			if *begun != e.Meta.ID {
				m.Errorf("the effect of %s was given what was begun of %s", e.Meta.ID, *begun)
			}
			m.underWay.Add(1)
			if m.hold != nil {
				<-m.hold
			}
			if err := m.failure("do", e.Data); err != nil {
				return err
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.sent = append(m.sent, fmt.Sprintf("%s%d", e.Data.Agg, e.Data.N))
			return nil
		},
		End: func(ctx context.Context, tx *db.Tx, all []event.Event[step], begun []*string) error {
			m.ends.Add(1)
			for i, e := range all {
				if *begun[i] != e.Meta.ID {
					m.Errorf("the end of %s was given what was begun of %s", e.Meta.ID, *begun[i])
				}
				if err := m.failure("end", e.Data); err != nil {
					return err
				}
				if err := m.apply(ctx, tx, e.Data.Agg, e.Data.N); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

func (m *mailing) times(name string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sent {
		if s == name {
			n++
		}
	}
	return n
}

func TestHandleEffect(t *testing.T) {
	t.Parallel()
	const keys, each = 30, 4
	key := func(i int) string { return fmt.Sprintf("k%02d", i) }
	t.Run("effects of a key come in order and once, those of many keys share their transactions", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{Workers: 8})
		for n := range int64(each) {
			for i := range keys {
				m.steps(key(i), n+1, n+1)
			}
		}
		m.run()
		m.poll(0)
		m.until("all are done", func() bool { return len(m.states()) == 0 && len(m.done()) == keys*each })
		for i := range keys {
			var got []string
			for _, s := range m.sent {
				if s[:3] == key(i) {
					got = append(got, s[3:])
				}
			}
			if !slices.Equal(got, []string{"1", "2", "3", "4"}) {
				t.Errorf("effects of %s: %v", key(i), got)
			}
		}
		if b, e := m.begins.Load(), m.ends.Load(); b > keys*each/2 || e > keys*each/2 {
			t.Errorf("%d events began in %d calls and ended in %d, want far fewer", keys*each, b, e)
		}
	})
	t.Run("one that cannot begin is a dead letter, and the others go on", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{})
		m.failing["begin k01"+"1"] = inbox.Permanent(errOops)
		for i := range 5 {
			m.steps(key(i), 1, 1)
		}
		m.run()
		m.until("Run has begun", m.Inbox.Runs)
		m.poll(0)
		if state := m.states()["k01"]; state != "dead" {
			t.Errorf("it is %s, want dead", state)
		}
		m.until("four are done and one is dead", func() bool { return len(m.done()) == 4 && m.states()["k01"] == "dead" })
		if n, waiting := m.times("k011"), m.count(`select count(*) from waiting_event`); n != 0 || waiting != 1 {
			t.Errorf("its effect happened %d times, and it waits %d times; want never and once", n, waiting)
		}
	})
	t.Run("one whose next event cannot begin lets it wait, and is done", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{})
		m.failing["begin k002"] = inbox.Permanent(errOops)
		m.steps("k00", 1, 2)
		m.steps("k01", 1, 2)
		m.run()
		m.poll(0)
		m.until("three are done and one is dead", func() bool { return len(m.done()) == 3 && m.states()["k00"] == "dead" })
		if a, b := m.times("k001"), m.times("k002"); a != 1 || b != 0 {
			t.Errorf("the effects happened %d and %d times, want once and never", a, b)
		}
	})
	t.Run("an end that fails is tried again without the effect, and holds up no others", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{})
		m.failing["end k001"] = errOops
		for i := range 5 {
			m.steps(key(i), 1, 2)
		}
		m.run()
		m.poll(0)
		m.until("the others are done", func() bool { return len(m.done()) == 8 })
		m.mu.Lock()
		delete(m.failing, "end k001")
		m.mu.Unlock()
		m.until("all are done", func() bool { return len(m.states()) == 0 && len(m.done()) == 10 })
		if n := m.times("k001"); n != 1 {
			t.Errorf("the effect happened %d times, want once", n)
		}
	})
	t.Run("effects that a stop finds waiting for their turn are given back at once", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{Workers: 1, Claim: time.Hour})
		m.hold = make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Inbox.Run(ctx) }()
		for i := range 5 {
			m.steps(key(i), 1, 1)
		}
		running := func() int { return m.count(`select count(*) from waiting_key where state = 'running'`) }
		// Until Run has begun what comes waits for a worker; then all are claimed at once.
		m.until("Run has begun", func() bool { return m.Inbox.Runs() })
		m.poll(0)
		m.until("all are claimed, and one is under way", func() bool { return running() == 5 && m.underWay.Load() == 1 })
		stop()
		m.until("only the one under way is claimed", func() bool { return running() == 1 })
		close(m.hold)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(m.done()); n != 1 {
			t.Errorf("%d are done, want the one that was under way", n)
		}
		m.hold = nil
		m.run()
		m.until("the others are done by the next one", func() bool { return len(m.done()) == 5 })
	})
	t.Run("a stop gives back nothing that was taken over", func(t *testing.T) {
		t.Parallel()
		m := newMailing(t, inbox.Config{Workers: 1, Claim: time.Hour})
		m.hold = make(chan struct{})
		m.steps("k00", 1, 1)
		m.steps("k01", 1, 1)
		stop := m.run()
		m.until("Run has begun", m.Inbox.Runs)
		m.poll(0)
		m.until("one is under way", func() bool { return m.underWay.Load() == 1 })
		if _, err := m.db.Exec(t.Context(), `update waiting_key set claim = claim + 1`); err != nil {
			t.Fatal(err)
		}
		close(m.hold)
		stop()
		if got := m.states(); got["k00"] != "running" || got["k01"] != "running" {
			t.Errorf("the keys are %v, want both running still, as another one's", got)
		}
	})
}

// A key that somebody lets wait after a poll has looked for it, such as an operator's replay, is not
// claimed by the poll: its effect would come before what waits, or beside it.
func TestHandleEffect_of_a_key_that_waits_meanwhile(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Log("SQLite: nobody else writes during a transaction")
		return
	}
	r := newRig(t, inbox.Config{})
	var begun, effects atomic.Int64
	inbox.HandleEffect(r.Inbox, inbox.Effect[step, int]{
		Begin: func(ctx context.Context, _ *db.Tx, all []event.Event[step]) ([]int, error) {
			var err error
			if begun.Add(1) == 1 {
				_, err = r.db.Exec(ctx, `insert into waiting_key (group_name, topic, key, state, due, type) values ('test', 'steps', $1, 'retrying', now_micros() + 3600000000, '')`, []byte("a"))
			}
			return make([]int, len(all)), err
		},
		Do:  func(context.Context, event.Event[step], int) error { effects.Add(1); return nil },
		End: func(context.Context, *db.Tx, []event.Event[step], []int) error { return nil },
	})
	r.steps("a", 1, 1)
	r.run()
	r.until("Run has begun", r.Runs)
	r.poll(0)
	if n := effects.Load(); n != 0 || r.states()["a"] != "retrying" {
		t.Errorf("%d effects, the key is %s; want none, and that it waits", n, r.states()["a"])
	}
	if _, err := r.db.Exec(t.Context(), `update waiting_key set due = 0`); err != nil {
		t.Fatal(err)
	}
	r.until("it is done", func() bool { return len(r.states()) == 0 })
	if n := effects.Load(); n != 1 {
		t.Errorf("%d effects, want one", n)
	}
}
