package db

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// GroupCommit lets callers that come at the same time share a transaction, which costs about as
// much for many as for one. While one is under way, those that come gather for the next. Soon behind
// a small one, of a size up to 16, the first of the next lingers for others: until it is a small one no
// more, nearly as many callers are there as there have been at once lately, or its time is over. Who comes
// alone does not wait, nor do those who come in crowds. It is safe for concurrent use.
type GroupCommit[T any] struct {
	most int
	size func(T) int
	run  func(context.Context, []T) error

	mu      sync.Mutex
	here    int // callers, of which some wait
	running int // groups under way, or about to be
	waiting []*member[T]
	linger  lingering
	enough  chan struct{} // is closed when nobody else is to be waited for; nil if none lingers
	first   int           // the size of the one that lingers
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

var (
	errLead = errors.New("run the next group")
	errLeft = errors.New("the context of a member of the group has ended")
	errDied = errors.New("the goroutine that ran the group has panicked")
)

// NewGroupCommit makes groups whose sizes add up to most, or that have one member. Nobody lingers for
// longer than linger, which is below 50 ms and counted from when Do was called; if it is more than 2 ms,
// only where more than four callers have been there at once. run does the work of a group; its error
// is every member's, so what becomes of them one by one it notes in the members. Its context ends with
// that of any member.
func NewGroupCommit[T any](linger time.Duration, most int, size func(T) int, run func(context.Context, []T) error) *GroupCommit[T] {
	return &GroupCommit[T]{most: most, size: size, run: run, linger: newLingering(linger)}
}

// Do returns the error of a group that one was in. It blocks until that has run, or until ctx has
// ended and nothing is done for one any more.
func (g *GroupCommit[T]) Do(ctx context.Context, one T) error {
	came := time.Now()
	for {
		err := g.join(&member[T]{ctx: ctx, one: one, came: came, done: make(chan error, 1)})
		if !errors.Is(err, errLeft) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (g *GroupCommit[T]) join(m *member[T]) error {
	g.mu.Lock()
	g.here++
	defer g.leave()
	g.linger.come(g.here)
	if g.running > 0 {
		g.waiting = append(g.waiting, m)
		if g.enough != nil && (g.first+g.sizeOf(g.waiting...) > smallGroup || g.linger.enough(1+len(g.waiting))) {
			close(g.enough)
			g.enough = nil
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
	if rest := g.linger.rest(m.came, 1+len(g.waiting), g.sizeOf(m)+g.sizeOf(g.waiting...)); rest > 0 {
		g.first = g.size(m.one)
		g.lingers(m.ctx, rest)
	}
	if err := m.ctx.Err(); err != nil {
		g.mu.Unlock()
		return err
	}
	group := g.gather(m)
	g.mu.Unlock()
	return g.lead(group)
}

func (g *GroupCommit[T]) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.here--
}

func (g *GroupCommit[T]) sizeOf(all ...*member[T]) (n int) {
	for _, m := range all {
		n += g.size(m.one)
	}
	return n
}

// lingers waits until enough have come. The caller holds mu, which is free meanwhile.
func (g *GroupCommit[T]) lingers(ctx context.Context, d time.Duration) {
	enough := make(chan struct{})
	g.enough = enough
	g.mu.Unlock()
	timer := time.NewTimer(d)
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-enough:
	}
	timer.Stop()
	g.mu.Lock()
	g.enough = nil
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
	for len(g.waiting) > 0 && n+g.size(g.waiting[0].one) <= g.most {
		n += g.size(g.waiting[0].one)
		group = append(group, g.waiting[0])
		g.waiting = g.waiting[1:]
	}
	g.linger.begun, g.linger.last = time.Now(), n
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
