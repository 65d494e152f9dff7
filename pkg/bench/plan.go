package main

import "time"

// plan says how much is measured.
type plan struct {
	rounds   int
	span     time.Duration // of one run of a work without n
	produced int           // records of one run
	consumed int
	effects  int           // events of one run of an inbox
	backlog  int           // events of one run of a relay
	trickle  int           // events of one run of a relay that has little to do
	orders   int           // of one run of an intake
	sagas    int           // of one run of a shop
	warm     int           // sagas before it
	open     time.Duration // of one run of a shop with a fixed rate
	slow     int           // events with slow effects
	waiting  int           // keys that wait
	idle     time.Duration // before the memory of a program is read
	members  int           // records per second to a group whose members come and go
	calm     time.Duration // between two upsets of a group
	heat     time.Duration // for which a broker of Java works before anything is measured
	short    bool          // without what takes long however little is measured

	rig *rig // whose accounts are watched; nil watches this process alone
}

// whole takes about half an hour on two processors, quick less than one.
var (
	whole = plan{
		rounds: 5, span: 100 * time.Millisecond, produced: 100_000, consumed: 200_000, effects: 30_000, backlog: 60_000, trickle: 5_000, orders: 15_000,
		sagas: 3_000, warm: 300, open: 30 * time.Second, slow: 10_000, waiting: 100_000, idle: 3 * time.Second, members: 20_000, calm: 3 * time.Second, heat: 20 * time.Second,
	}
	quick = plan{
		rounds: 1, span: time.Millisecond, produced: 5_000, consumed: 5_000, effects: 2_000, backlog: 2_000, trickle: 200, orders: 500,
		sagas: 200, warm: 50, open: time.Second, slow: 200, waiting: 2_000, idle: 100 * time.Millisecond, members: 500, calm: 300 * time.Millisecond, short: true,
	}
)
