// Package codec turns payloads into registry-framed Avro and back: the newest version of an
// event out, whatever version somebody wrote in.
//
// A value is 0x00, the schema's ID in the registry as 4 bytes big endian, and the Avro
// datum. The writer's schema decides what a value is, no header does, so a foreign producer
// that sends plain Avro works. An ID that the binary does not know is fetched, once.
//
//	c, err := codec.New(cfg, OrderPlaced{})
//	err = c.Verify(ctx)
//	value, err := c.Encode(OrderPlaced{ID: "o-1"})
//	placed, err := codec.Decode[OrderPlaced](ctx, c, value)
//
// # Why two Avro libraries
//
// Context: hamba/avro generates good structs, but it is archived, and its decoder takes a cut
// event for a shorter one and lets 6 bytes allocate gigabytes. Decision: hamba stays in the
// build (schemas) and no program links it; twmb/avro judges compatibility and moves the bytes,
// unless the payload has code of its own ([Straight]). Cost: one generated struct has to please
// both, which the golden bytes in schemas/testdata check.
//
// # Why the writer's schema is walked before the bytes are decoded
//
// Context: a value may cost at most 64 times its size plus 1 MiB, whatever its bytes and its
// schema say. twmb bounds counts by the bytes that are left, but grows a slice anew with
// each block of an array, so that many small blocks cost the square of their number; and
// types that take no bytes, or records nested without end, make each byte as expensive as
// the schema likes. Decision: such schemas are refused when they are fetched (tree.go),
// and a value that is long enough to be a bomb is walked first and its slices are added up
// (walk.go). Cost: a second pass over values above some 300 bytes that have arrays.
//
// # Why an unknown schema is not an undecodable value
//
// Context: "unknown" may mean that the registry is down, or behind. Decision: only a
// registry's own "no such schema" is ErrUnknownSchema, remembered for 30 s; everything else
// is ErrUnavailable, remembered for 1 s, and worth trying again. Fetched and verified
// schemas are kept in a Store, so that a restart needs no registry. Cost: a wrong
// SCHEMA_REGISTRY_URL delays events instead of discarding them.
package codec
