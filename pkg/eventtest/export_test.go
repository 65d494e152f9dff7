package eventtest

import "testing"

// Each hands over the difference that each schedule makes.
func (tr Trial) Each(t *testing.T, judge func(t *testing.T, schedule, diff string)) {
	t.Helper()
	tr.each(t, judge)
}

// The points.
const (
	BeforeCommit = string(beforeCommit)
	BeforeOffset = string(beforeOffset)
	AfterPublish = string(afterPublish)
)

// KillAt kills the replica when it comes to a point.
func (p *Replica) KillAt(at string) { p.killAt(point(at)) }

// Killed reports whether it has.
func (p *Replica) Killed() bool { return p.killed() }
