package db

import "time"

// lingering decides for how long the first of a group waits for others. Soon behind a small group it
// does, so that at a rate at which small groups would chase each other they are fewer and larger: on a
// machine with little left to give, what the transactions in between would have cost is worth more than
// the wait (B9 of pkg/bench).
//
// It waits until three quarters of as many callers are there as there have been at once lately. Those
// who come back when they have their answers are there then, but for the slowest, so that nobody waits for
// who is not going to come. At a steady rate some come while a group is under way, so that there are more
// at once than a group has, and the wait is bounded by time.
type lingering struct {
	most  time.Duration // the longest wait
	few   int           // callers at once that are not worth a wait
	begun time.Time     // when the last group began
	last  int           // its size

	since       time.Time
	now, before int // the most callers at once since then, and in the time before
}

const (
	smallGroup = 16 // the size of the largest small one
	soonBehind = 20 * time.Millisecond
	lately     = 100 * time.Millisecond // and up to twice as long
	cheapWait  = 2 * time.Millisecond   // is worth it for two callers
	fewCallers = 4                      // are not worth a longer one
)

func newLingering(most time.Duration) lingering {
	l := lingering{most: most, few: 1}
	if most > cheapWait {
		l.few = fewCallers
	}
	return l
}

// come notes that so many callers are there.
func (l *lingering) come(callers int) {
	if now := time.Now(); now.Sub(l.since) > lately {
		if l.before = l.now; now.Sub(l.since) > 2*lately {
			l.before = 0
		}
		l.since, l.now = now, 0
	}
	l.now = max(l.now, callers)
}

// rest is how long somebody has still to wait, who came then and would begin a group of so many callers
// and that size now.
func (l *lingering) rest(came time.Time, callers, size int) time.Duration {
	if size > smallGroup || l.last > smallGroup || time.Since(l.begun) > soonBehind || l.enough(callers) {
		return 0
	}
	return max(0, l.most-time.Since(came))
}

// enough reports whether nobody else is to be waited for.
func (l *lingering) enough(callers int) bool {
	atOnce := max(l.now, l.before)
	return atOnce <= l.few || callers >= atOnce-atOnce/4
}
