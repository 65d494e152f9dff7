// Package faults holds the fault suite: the three services as processes of their own, on an
// embedded or a real Kafka and on SQLite or a PostgreSQL that the suite has started, while
// customers order and the parts are killed, stopped, cut off or confused. Each fault is a
// test that is named after its number in the list of promises. Afterwards package check
// judges everything that the shop has left: topics, mails, routes, tables.
//
//	make faults            every fault, in full; needs Java, Maven and PostgreSQL for some
//	make faults SEED=7     the same faults at other moments
//	go test ./services/all/faults              a short part of those that need nothing
//	KEYLINE_FAULTS=ci go test -v ./services/all/faults     a short part of all that can run here
//
// # How a test is made
//
//	func TestF5_…(t *testing.T) {
//		r := newRig(t, onEmbedded, onSQLite) // parts, schemas, topics; skips if there is no such part
//		r.startAll()                         // order, inventory and email, ready
//		load := r.load(30)                   // customers, 30 orders a second, until load.stop
//		r.every(2*time.Second, r.size(3, 30), func(int) { … kill … })
//		load.stop()                          // each request that was begun is seen to its answer
//		r.judge(check.Expect{})              // waits for quiet, collects, judges
//		r.note(rounds, "…")                  // a row of the table
//	}
//
// A rig belongs to one test; its parts end with it. Time, orders and victims come from
// r.rand, which the seed decides; a failure prints it. What a test does to a process it does
// from outside: signals (process_test.go), a proxy that cuts or swallows (proxy_test.go), a
// mail server that misbehaves (smtp_test.go), the embedded broker's control hooks, locks
// held in a database. A test also proves that its fault has happened: it fails if the wire
// shows no duplicate where one had to be, or no connection was cut.
package faults
