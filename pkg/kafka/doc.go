// Package kafka publishes records to Kafka, and hands the records of a consumer group to a
// processor, partition by partition and in order. It knows neither Avro nor SQL: what a record
// means is up to its callers.
//
// Publishing: [Producer.Publish] writes a window of records and waits for all of them.
// Consuming: [Consumer.Run] calls a [Processor] with batches. [Provision] creates topics.
//
// # When an offset is committed
//
// When [Processor.Process] has returned nil for every record before it: no timer, no poll and
// no revoke commits what is in hand. Only an operator can commit something else, to go on
// behind what cannot be read ([Consumer.Skip]). Each partition has one worker that takes its
// batches in order, so that "every record before it" is simply the end of the last batch. The
// commit follows at once, at most 20 times a second, and once more before a partition is given
// up. A failed commit is repeated with newer offsets by the next one. A crash therefore means
// that the records of the last few batches are read again.
//
// # Why a former owner cannot reorder a key
//
// A partition that moves to another member is given up in steps: its worker finishes the batch
// in hand, its offset is committed, a commit still under way has ended; only then may the
// other member read it. So in a group that works, two members never work on a partition at the
// same time. For the broker's answer to the commit a revoke waits up to 5 s; without it the
// next owner goes on from the commit before and reads those records again, but a commit that
// comes late is refused, being of an old generation: no offset goes back. A member that the
// group has given up on, because it was stopped or cut off, may still be at work when the next
// owner begins. Its commits are refused likewise. That its work has no effect is for the
// processor to see to: see the package inbox, whose rows do.
//
// # Why a lost position stops a partition
//
// Context: retention, an unclean election or a recreated topic can take away records that the
// group has not read. Kafka's clients then go on somewhere else. Decision: the partition
// stops, with an error that names the range, and a metric; the other partitions go on, and
// nothing is skipped or committed until a person has decided where to go on. Cost: somebody
// has to be called. A batch that decompresses to more than 16 MiB, or whose records take more
// than 32 MiB in memory, stops its partition alike.
//
// An offset that another program has set, such as Kafka's own tools, is somebody's decision: the
// group goes on there. But our commits are signed, and at one that is not, what lies between the
// last record that was handled and the offset is told like a loss.
//
// # Why a window, and no asynchronous Produce
//
// Context: after a failure in a partition, the client fails what it holds of it and then
// writes what comes later, which puts a key's events out of order. Decision: a window is
// handed over whole before any failure can be noticed, waited for to its end, and followed by
// a new client if anything failed. Cost: a round trip between two windows, which the size of a
// window makes up for. See the comments of gate and window.
//
// # Memory
//
// A consumer holds, for each broker, one fetch: 4 MiB as it is sent, and of the compressed
// batches in it as many as take 32 MiB when they are decompressed and taken apart into records;
// the rest is fetched again. For each partition it holds a queue of 8192 records or 8 MiB,
// beyond which it stops fetching, with what one poll of 2000 records brings on top, and a batch
// of 500 in hand. Measured with 60 batches of 15 MiB each that take a kilobyte on the wire: the
// heap rises by 87 MiB, a second fetch under way and garbage included.
package kafka
