package db

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// GroupCommit lets callers that come at the same time share a transaction, which costs about as
// much for many as for one. While one is under way, those that come gather for the next. Behind a
// small one, of a size from 2 to 16, the first of the next lingers until 16 others have come, so that
// at a rate at which small ones would chase each other they are fewer and larger. What comes one by
// one does not wait, nor does what comes in crowds; those who come back in step with the groups, as a
// few busy clients do, wait ever more rarely. It is safe for concurrent use.
type GroupCommit[T any] struct {
	linger time.Duration
	most   int
	size   func(T) int
	run    func(context.Context, []T) error

	mu      sync.Mutex
	running int // groups under way, or about to be
	last    int // the size of the last one
	vain    int // how many waits in a row were in vain, at most 5
	hurry   int // how many groups are not to linger
	waiting []*member[T]
	crowd   chan struct{} // is closed when many wait for the one that lingers; nil if none does
}

// member is one caller's part.
type member[T any] struct {
	ctx  context.Context
	one  T
	came time.Time
	done chan error // holds one: what became of it, or errLead
}

// overtakeAfter is how long a caller waits for others' transaction before it begins one beside
// it: a slow one must not hold up those that have nothing to do with it.
const overtakeAfter = 50 * time.Millisecond

// A group of a size up to small is small. On a machine with little left to give, what the transactions
// in between would have cost is worth more than the wait: CPU s and p99 of B9. But if nobody came in
// the last three quarters of a wait longer than cheap, it was in vain, and the next groups do without:
// as many as hurried, up to 32 times as many after several such waits in a row.
const (
	small   = 16
	cheap   = 2 * time.Millisecond
	hurried = 8
)

var (
	errLead = errors.New("run the next group")
	errLeft = errors.New("the context of another member of the group has ended")
	errDied = errors.New("the goroutine that ran the group has panicked")
)

// NewGroupCommit makes groups whose sizes add up to most, or that have one member. Nobody lingers for
// longer than linger, counted from when Do was called. run does the work of a group; its error is
// every member's, so what becomes of them one by one it notes in the members. Its context ends with
// that of any member.
func NewGroupCommit[T any](linger time.Duration, most int, size func(T) int, run func(context.Context, []T) error) *GroupCommit[T] {
	return &GroupCommit[T]{linger: linger, most: most, size: size, run: run}
}

// Do returns the error of a group that one was in. It blocks until that has run, or until ctx has
// ended and nothing is done for one any more.
func (g *GroupCommit[T]) Do(ctx context.Context, one T) error {
	for {
		err := g.join(&member[T]{ctx: ctx, one: one, came: time.Now(), done: make(chan error, 1)})
		if !errors.Is(err, errLeft) || ctx.Err() != nil {
			return err
		}
	}
}

func (g *GroupCommit[T]) join(m *member[T]) error {
	g.mu.Lock()
	if g.running > 0 {
		g.waiting = append(g.waiting, m)
		if g.crowd != nil && len(g.waiting) >= small {
			close(g.crowd)
			g.crowd = nil
		}
		g.mu.Unlock()
		if err := g.await(m); !errors.Is(err, errLead) {
			return err
		}
		g.mu.Lock()
	} else {
		g.running++
	}
	defer g.next()
	if err := g.lingers(m); err != nil {
		g.mu.Unlock()
		return err
	}
	group := g.gather(m)
	g.mu.Unlock()
	return g.lead(group)
}

// lingers waits for others, behind a small group. The caller holds mu, which is free meanwhile.
func (g *GroupCommit[T]) lingers(m *member[T]) error {
	rest := g.linger - time.Since(m.came)
	switch {
	case g.last < 2 || g.last > small || rest <= 0:
	case g.hurry > 0:
		g.hurry--
	default:
		g.pause(m.ctx, rest/4)
		before := len(g.waiting)
		g.pause(m.ctx, rest-rest/4)
		if n := len(g.waiting); n > before || n >= small || g.linger <= cheap {
			g.vain = 0
		} else {
			g.hurry, g.vain = hurried<<g.vain, min(g.vain+1, 5)
		}
	}
	return m.ctx.Err()
}

// pause waits until many have come. The caller holds mu, which is free meanwhile.
func (g *GroupCommit[T]) pause(ctx context.Context, d time.Duration) {
	if len(g.waiting) >= small {
		return
	}
	crowd := make(chan struct{})
	g.crowd = crowd
	g.mu.Unlock()
	timer := time.NewTimer(d)
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-crowd:
	}
	timer.Stop()
	g.mu.Lock()
	g.crowd = nil
}

// next lets the first of those that wait run a group, if nobody else does.
func (g *GroupCommit[T]) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.running == 0 && len(g.waiting) > 0 {
		g.running++
		g.waiting[0].done <- errLead
		g.waiting = g.waiting[1:]
	}
}

// await returns what has become of m, or errLead if it is to run a group, which counts already.
func (g *GroupCommit[T]) await(m *member[T]) error {
	overtake := time.NewTimer(overtakeAfter)
	defer overtake.Stop()
	select {
	case err := <-m.done:
		return err
	case <-m.ctx.Done():
	case <-overtake.C:
	}
	g.mu.Lock()
	if i := slices.Index(g.waiting, m); i >= 0 {
		defer g.mu.Unlock()
		g.waiting = slices.Delete(g.waiting, i, i+1)
		if err := m.ctx.Err(); err != nil {
			return err
		}
		g.running++
		return errLead
	}
	g.mu.Unlock()
	return <-m.done // a group has it, and ends with ctx; or it is to run one
}

// gather takes those that wait, up to the bound, behind first. The caller holds mu.
func (g *GroupCommit[T]) gather(first *member[T]) []*member[T] {
	group, n := []*member[T]{first}, g.size(first.one)
	defer func() { g.last = n }()
	for len(g.waiting) > 0 && n+g.size(g.waiting[0].one) <= g.most {
		n += g.size(g.waiting[0].one)
		group = append(group, g.waiting[0])
		g.waiting = g.waiting[1:]
	}
	return group
}

// lead runs a group on behalf of all its members; the first is the caller.
func (g *GroupCommit[T]) lead(group []*member[T]) (err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(group[0].ctx))
	defer cancel()
	all := make([]T, len(group))
	for i, m := range group {
		all[i] = m.one
		defer context.AfterFunc(m.ctx, cancel)()
	}
	err = errDied
	defer func() { // also if run panics: the others must not wait for ever
		for _, m := range group[1:] {
			m.done <- err
		}
	}()
	err = g.run(ctx, all)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(errLeft, err)
	}
	return err
}
