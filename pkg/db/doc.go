// Package db opens a service's database, PostgreSQL or SQLite, brings its tables up to
// date, and runs functions in transactions. What the two databases do differently lives
// here, so that the SQL of everybody else is one text for both.
//
// The SQL of all packages keeps to what both accept: parameters are $1, $2, …; times are
// bigint microseconds since 1970 in UTC, made by now_micros(); bytes are bytea.
//
// # Why now_micros
//
// Context: replicas' clocks differ, and leases and deadlines must be judged by one clock.
// Decision: on PostgreSQL now_micros() is the server's clock. SQLite has no server: there it
// is this process's clock, which is also what a test in virtual time needs. Cost: one SQL
// function created by [DB.Migrate].
//
// # Why one writer on SQLite
//
// Context: SQLite lets one connection write at a time, and a second one fails or spins.
// Decision: all transactions go through one connection, where they queue under their
// context, and begin by taking the write lock; reads outside a transaction have connections
// of their own. Cost: a transaction must not wait for another one of the same process.
//
// # Why everything ends
//
// Context: a server or a pooler that hangs still acknowledges what it is sent, so that TCP sees
// nothing wrong, and whoever waits for its answer waits for ever: the relay, for one, while the
// intake goes on. Decision: a transaction ends after a minute, a statement outside one after half
// a minute, and a connection that has rested is asked whether the server is still there. Cost: a
// round trip for each use after a rest of a second, and no statement that takes longer.
//
// # Why writes are sent late
//
// Context: a round trip costs as much as a small statement, on both sides, and a transaction of an
// inbox has a dozen statements. Decision: on PostgreSQL the begin, and [Tx.ExecLater] and what is built on
// it, are sent with the next statement that has an answer, or with the commit. Cost: their errors are
// those of that statement.
//
// # Why transactions are shared
//
// Context: a commit waits for the disk, and most of what a transaction costs it costs once.
// Decision: those who come while one is under way share the next one ([GroupCommit]). Soon behind a
// small group the next one lingers for others, 1 to 10 ms at most, as its user says; alone, one is as fast
// as before, and callers who come back at once when they have their answers are faster. Cost: that wait,
// by which callers who come back at random within it get fewer answers, by some 40 % at worst; and what
// fails for one is run again for all of a group, one by one.
package db
