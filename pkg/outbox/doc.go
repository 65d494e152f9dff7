// Package outbox saves events in the transaction of the change that caused them, and
// relays them to a topic in order.
//
//	o := outbox.New(database, codec, outbox.Config{Source: "/order"})
//	err := database.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
//		// … raise the aggregate's version, which locks its row …
//		return o.Append(ctx, tx, version, event.By(cause.Meta), schemas.OrderConfirmed{…})
//	})
//	…
//	err = o.Relay(ctx, producer) // a part of the service, beside its HTTP server
//
// # Why rows are read without a cursor
//
// Context: a row's ID is drawn before its transaction commits, so a lower ID may become
// visible later, and a cursor would never see it. Filters on transaction IDs
// (pg_snapshot_xmin) let a long transaction hold up everybody and can reverse the events of
// one key. Decision: the ID is drawn under the lock of the aggregate's row, so that within a
// key row order is commit order; the relay reads all visible rows in ID order, and deletes
// what was acknowledged, fifty rows or those of 50 ms at a time; the windows in between leave
// them out one by one. Cost: deletes, which keep the table small, and for which the next window
// waits; a crash, or another relay that takes over while a window waits for the brokers, publishes once
// more what is still to be deleted.
//
// # Why one window at a time
//
// Context: after a record fails for good, franz-go fails what is buffered behind it and then
// writes what is produced later: an event would overtake an earlier one of its key.
// Decision: a window is buffered whole, flushed, and waited for; nothing is produced ahead;
// after a failure everything is read again. Cost: one round trip per window.
//
// # Why what fails is held back, and when not
//
// Context: one event that no broker takes, a topic that is missing, or a partition that does
// not answer would stop everything behind it. Decision: the key (the event, if it has none) or
// the topic is left out, with all that follows it, and its first event is tried again ever more
// rarely. Five failures in a row, or a window without any answer, are the brokers' fault: then
// nothing counts as held, so that the intake sees what waits. Cost: a sick partition holds its
// topic, and everybody for ten seconds at each try; behind a hundred bad keys the rest waits.
//
// # Why a lease, and why it need not be exact
//
// Context: a session lock can be held by a stopped process and breaks behind poolers.
// Decision: one row names the relay that is on duty, until when. A second one by mistake
// causes duplicates only: each publishes, per key, a prefix of what is unsent.
package outbox
