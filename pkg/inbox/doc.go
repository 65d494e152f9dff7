// Package inbox runs a service's handlers so that the effect of each event happens once and
// in the order of its key, and so that what fails waits in the database without holding up
// other keys.
//
//	in, err := inbox.New(database, codec, outbox, inbox.Config{Group: "inventory"})
//	inbox.Handle(in, s.onOrderPlaced) // func(ctx, tx, event.Event[schemas.OrderPlaced]) error
//	inbox.HandleSlow(in, s.onOrderConfirmed)
//	…
//	consumer, err := kafka.NewConsumer(cfg, in.Topics(), in) // calls in.Process
//	err = in.Run(ctx)                                        // works on what waits
//
// # How it works
//
// [Inbox.Process] takes records in one transaction, which the partitions of a topic share when
// they come at the same time, and which takes its locks in the order that every transaction
// keeps:
//
//  1. It inserts a row per event into inbox. A row that is there already is a duplicate.
//  2. It reads the partitions' marks: what lies below is old, its rows have been removed. It
//     looks up, and locks, which of the events' keys wait in waiting_key.
//  3. In offset order: an event whose key waits goes into the key's queue in waiting_event,
//     a slow one too, any other runs its handler. One that fails goes into the queue, and
//     its key waits from then on.
//  4. The handlers' own events are inserted into the outbox; commit; then the offset.
//
// Handlers run many events at a time. If one fails, the transaction is undone and run again with
// the handlers one by one, each with a way back.
//
// [Inbox.Run] works on the queues, in any replica: a worker locks a key that is due, runs
// its first event, and deletes it in the transaction of its effect. A slow effect runs
// outside any transaction under a claim: a number that is raised when the key is taken, and
// compared when the end is written. The key's next event follows that transaction; quick effects
// that leave nothing to be written follow one another, some of them before each such end.
//
// # Why order holds without caches or fencing tokens
//
// Context: a consumer that was stopped may go on with partitions that others own by now.
// Decision: an event's inbox row and its effect, or its place in the queue, commit together.
// Owners work through a partition in offset order, without gaps, from a committed offset, and
// an offset is committed only behind such commits. Whoever comes second to an event's row waits
// for the first one and then skips it, or takes it if the first has rolled back; so nobody
// reaches an event before all earlier ones are taken. This needs READ COMMITTED, which package
// db sets, and keys that stay in their partitions. Waiting keys are looked up
// inside the transaction, under their lock, and never remembered; that settles the one
// hand-over there is, a poll that appends to a key which a worker is finishing. Cost: two
// statements per batch, and one inbox row per record that the topic still holds.
//
// # What becomes of a failure
//
// An error is tried again, with growing pauses; after the last attempt the event is a dead
// letter, and its key waits behind it. [Permanent] makes it one at once. [Unavailable], for
// what a handler needs and cannot reach, counts no attempt: the type's circuit opens, its
// events wait, one of them probes, and all resume together. A handler that fails every event
// ends the same way: after 20 dead letters in a row without a success, what fails next waits as
// unavailable. Events that come are tried all the same, since many bad ones must not hold up
// good ones, and each success lets a wave of those that wait go on.
//
// # Why rows are removed behind a mark
//
// Context: the inbox must not grow for ever, and a stopped consumer may wake up with a batch
// whose rows are gone. Decision: rows leave when their highest position is below the
// partition's log start and has been taken, in the transaction that raises the mark; a
// record below the mark is skipped. Where an operator lets a partition go on in a log that was
// cut below the mark, [Inbox.Rewind] lowers it. Cost: the marks are read with the waiting keys.
package inbox
