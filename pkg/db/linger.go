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
	most    time.Duration // the longest wait
	begun   time.Time     // when the last group began
	last    int           // its size
	waited  bool          // the first of the next one has waited
	came    [2]tally      // who has come, while nobody waited and while the first did
	worth   int           // how many waits were worth it since one was not
	vain    int           // how many in a row were not, at most 5
	without int           // how many more times nobody waits
}

const (
	small   = 16 // the size up to which a group is small
	soon    = 20 * time.Millisecond
	cheap   = 2 * time.Millisecond
	busy    = 100 * time.Millisecond // groups further apart say nothing about the rate
	memory  = 100 * time.Millisecond // of the rate
	few     = 3                      // callers in the time of a wait
	compare = 32                     // waits in a row; then two groups without, to know that rate, too
	giveUp  = 8                      // waits at first, up to 32 times as many later
)

// rest is how long somebody has still to wait, who came then and would begin a group of that size now.
func (l *lingering) rest(came time.Time, size int) time.Duration {
	rest := l.most - time.Since(came)
	switch {
	case rest <= 0 || size > small || l.last > small || time.Since(l.begun) > soon:
		return 0
	case l.most <= cheap && l.last < 2:
		return 0
	case l.most > cheap && max(l.came[0].rate(), l.came[1].rate())*l.most.Seconds() < few:
		return 0
	case l.without > 0:
		l.without--
		return 0
	}
	l.waited = true
	return rest
}

// begins notes a group that begins now, of so many callers and that size.
func (l *lingering) begins(callers, size int) {
	came := &l.came[0]
	if l.waited {
		came = &l.came[1]
	}
	if since := time.Since(l.begun); since < busy {
		came.add(callers, since)
	}
	if l.waited && l.most > cheap {
		l.judge()
	}
	l.begun, l.last, l.waited = time.Now(), size, false
}

// judge says what a wait was worth.
func (l *lingering) judge() {
	switch {
	case l.came[1].rate() < l.came[0].rate()/2:
		l.worth, l.without, l.vain = 0, giveUp<<l.vain, min(l.vain+1, 5)
		l.came[0] = tally{} // it may have been another time's
	case l.worth%compare == 0:
		l.without = 2
		fallthrough
	default:
		l.vain = 0
		l.worth++
	}
}

// tally is how many have come in which time; what was long ago counts for less.
type tally struct {
	n float64
	d time.Duration
}

func (t *tally) add(n int, d time.Duration) {
	if t.d > memory {
		t.n, t.d = t.n/2, t.d/2
	}
	t.n, t.d = t.n+float64(n), t.d+d
}

// rate is 0 if nothing is known.
func (t *tally) rate() float64 { return t.n / max(t.d, 1).Seconds() }
