package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// group is the members that run, and what they have told.
type group struct {
	role    string
	told    memberTold
	keys    int
	calm    time.Duration // how long every key has to have gone on after an upset before the next one
	members []*groupMember
	// committed are the numbers whose effects a database has; nil where none does.
	committed func(context.Context) ([]int, error)

	mu       sync.Mutex
	seen     []sighting
	distinct int           // numbers that were seen
	known    []bool        // by number
	last     map[int]int64 // when each key was last handled
}

type groupMember struct {
	*child
	told   bool          // it has handled something
	killed int64         // when; 0 if it was not
	ended  chan struct{} // closed behind err
	err    error
}

func (g *group) add() error {
	c, err := spawn(g.role, g.told)
	if err != nil {
		return err
	}
	m := &groupMember{child: c, ended: make(chan struct{})}
	g.members = append(g.members, m)
	go func() {
		g.listen(m)
		m.err = c.explain(c.cmd.Wait()) // not before its pipe has been read
		close(m.ended)
	}()
	return nil
}

// listen reads a member's sightings until it ends; half a one is of one that was killed.
func (g *group) listen(m *groupMember) {
	frame := make([]byte, sightingSize)
	for {
		if _, err := io.ReadFull(m.out, frame); err != nil {
			return
		}
		s := sighting{int(binary.BigEndian.Uint64(frame)), int64(binary.BigEndian.Uint64(frame[8:]))}
		g.see(m, s)
	}
}

func (g *group) see(m *groupMember, s sighting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.told = true
	g.seen = append(g.seen, s)
	for len(g.known) <= s.number {
		g.known = append(g.known, false)
	}
	if !g.known[s.number] {
		g.known[s.number] = true
		g.distinct++
		g.last[s.number%g.keys] = s.at
	}
}

// stop lets a member end in its own way.
func (g *group) stop(i int) error {
	if err := g.members[i].cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-g.members[i].ended
	return nil
}

func (g *group) killOne(i int) error {
	g.members[i].killed = time.Now().UnixNano()
	if err := g.members[i].cmd.Process.Kill(); err != nil {
		return err
	}
	<-g.members[i].ended
	return nil
}

func (g *group) endAll() (err error) {
	for _, m := range g.members {
		_ = m.in.Close() // it is told to end; some have
	}
	for _, m := range g.members {
		select {
		case <-m.ended:
			if m.killed == 0 {
				err = errors.Join(err, m.err)
			}
		case <-time.After(stopPatience):
			err = errors.Join(err, fmt.Errorf("process %d does not end", m.pid()), m.cmd.Process.Kill())
		}
	}
	return err
}

// settled waits until every key has been handled for a while since a time, and so many members
// have handled some.
func (g *group) settled(ctx context.Context, since time.Time, members int) error {
	return g.until(ctx, "the group does not settle", func() bool {
		at := 0
		for _, m := range g.members {
			if m.told {
				at++
			}
		}
		if at < members || len(g.last) < g.keys {
			return false
		}
		for _, last := range g.last {
			if last < since.Add(g.calm).UnixNano() {
				return false
			}
		}
		return true
	})
}

// handled waits until so many records have been. A member that was killed may have committed what it
// could not tell any more.
func (g *group) handled(ctx context.Context, n int) error {
	var killed int64
	for _, m := range g.members {
		killed = max(killed, m.killed)
	}
	asks := killed != 0 && g.committed != nil
	told, cancel := ctx, context.CancelFunc(func() {})
	if asks {
		told, cancel = context.WithTimeout(ctx, 10*time.Second)
	}
	defer cancel()
	err := g.until(told, fmt.Sprintf("not all of %d records are handled", n), func() bool { return g.distinct == n })
	if err == nil || !asks {
		return err
	}
	numbers, failed := g.committed(ctx)
	if failed != nil {
		return errors.Join(err, failed)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, number := range numbers {
		if number >= len(g.known) || !g.known[number] {
			g.seen, g.distinct = append(g.seen, sighting{number, killed}), g.distinct+1
		}
	}
	if g.distinct != n {
		return err
	}
	return nil
}

func (g *group) until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		g.mu.Lock()
		ok := done()
		g.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New(what)
		}
	}
}
