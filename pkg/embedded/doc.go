// Package embedded holds the three outside systems that the shop needs, inside the process:
// a Kafka broker, a schema registry and a mailbox. `make run` and the tests use it; a service
// never imports it outside its tests.
//
// # Why it listens on loopback only
//
// Context: the broker is franz-go's kfake, a test double of great fidelity that trusts its
// callers: four bytes make it allocate 4 GiB, an unknown request makes it panic. Decision: it
// binds 127.0.0.1 and nothing else, behind a guard that looks at every request's first eight
// bytes. Cost: it cannot be reached from a container or another machine; for that there is a
// real broker.
//
// # Why the registry has a gate
//
// Context: srfake calls every schema compatible and numbers schemas from 1 in each run, so that
// records kept by the broker would be read with the wrong schema later. Decision: what is
// written goes through a gate of ours, which judges compatibility and derives each ID from the
// schema's text; what is read is answered by srfake. Cost: nothing can be deleted, and the level
// is FULL_TRANSITIVE for good.
package embedded
