package db

import "time"

// lingering decides for how long the first of a group waits for others. Soon behind a small group it
// does, so that at a rate at which small groups would chase each other they are fewer and larger: on a
// machine with little left to give, what the transactions in between would have cost is worth more than
// the wait (CPU s and p99 of B9). For a cheap wait it is enough that the last one was of more than one;
// for a longer one, a few callers must be expected.
//
// But where callers wait for their answers before they come back, as a few busy clients do, to wait for
// them only makes everybody slower: a wait that is not cheap must not halve the rate at which callers
// come. If it does it is given up, and tried again ever more rarely.
type lingering struct {
	most   time.Duration // the longest wait
	begun  time.Time     // when the last group began
	last   int           // its size
	waited bool          // the first of the next one has waited

	without, with tally // who has come, while nobody waited and while the first did
	worth         int   // how many waits were worth it since one was not
	vain          int   // how many in a row were not, at most 5
	skip          int   // how many are left out
}

const (
	smallGroup = 16 // the largest one
	soonBehind = 20 * time.Millisecond
	cheapWait  = 2 * time.Millisecond
	fewCallers = 3                      // they are not worth a wait that is not cheap
	together   = 100 * time.Millisecond // groups further apart say nothing about the rate
	rateOf     = 100 * time.Millisecond // what counts for the rate, about
	waitsInRow = 64                     // then some are left out
	leftOut    = 8                      // so many; up to 32 times as many after several in vain
)

// rest is how long somebody has still to wait, who came then and would begin a group of that size now.
func (l *lingering) rest(came time.Time, size int) time.Duration {
	rest := l.most - time.Since(came)
	switch {
	case rest <= 0 || size > smallGroup || l.last > smallGroup || time.Since(l.begun) > soonBehind:
		return 0
	case l.most <= cheapWait && l.last < 2:
		return 0
	case l.most > cheapWait && max(l.without.rate(), l.with.rate())*l.most.Seconds() < fewCallers:
		return 0
	case l.skip > 0:
		l.skip--
		return 0
	}
	l.waited = true
	return rest
}

// begins notes a group that begins now, of so many callers and that size.
func (l *lingering) begins(callers, size int) {
	came := &l.without
	if l.waited {
		came = &l.with
	}
	if since := time.Since(l.begun); since < together {
		came.add(callers, since)
	}
	if l.waited && l.most > cheapWait {
		l.judge()
	}
	l.begun, l.last, l.waited = time.Now(), size, false
}

// judge says what a wait was worth, and whether some are left out: for it was in vain, or to know again
// what the rate is without.
func (l *lingering) judge() {
	if l.with.rate() < l.without.rate()/2 {
		l.leaveOut(leftOut << l.vain)
		l.vain, l.worth = min(l.vain+1, 5), 0
		return
	}
	if l.worth%waitsInRow == 0 {
		l.leaveOut(leftOut)
	}
	l.vain, l.worth = 0, l.worth+1
}

func (l *lingering) leaveOut(waits int) {
	l.skip, l.without = waits, tally{}
}

// tally is how many have come in which time; what was long ago counts for less.
type tally struct {
	n float64
	d time.Duration
}

func (t *tally) add(n int, d time.Duration) {
	if t.d > rateOf {
		t.n, t.d = t.n/2, t.d/2
	}
	t.n, t.d = t.n+float64(n), t.d+d
}

// rate is 0 if nothing is known.
func (t *tally) rate() float64 { return t.n / max(t.d, 1).Seconds() }
