// Package sim runs the whole shop in one process and in virtual time, and breaks it.
//
// The three services run as they are, with their real Run functions, on a Kafka of three
// brokers, a registry, a mail server and SQLite, all of them inside one testing/synctest
// bubble: a minute of theirs passes in some hundred milliseconds. A seed decides what
// customers do, what breaks and how long everything takes. Then everything heals, and
// the checker of services/all/check judges what is left.
//
//	make sim SEEDS=1000   # as many seeds, on all processors
//	make sim SEED=42      # one, with its log of events
//
// The simulation is a test behind the build tag synctests, which makes the mutexes of the
// Kafka client visible to the bubble. Each seed has a process of its own, since only a new
// process repeats a run; services/all/sim/cmd/sim starts them and adds up what they report.
//
// # What it cannot find
//
// All processes share one scheduler and one clock, and SQLite has one writer: races between
// processors and PostgreSQL's finer locks are for the race detector and the tests on real
// parts. A crash loses what a process has not sent, but never what the database has taken.
package sim
