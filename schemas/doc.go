// Package schemas is the contract between the services: one Avro file per version of an
// event, the Go structs of the newest versions with the code for their bytes, the topic and
// key of each event, and the declaration of all topics.
//
// A service publishes and handles the structs:
//
//	placed := schemas.OrderPlaced{OrderID: "o-1", Currency: "EUR", PlacedAt: time.Now()}
//	placed.Topic() // "orders"
//	placed.Key()   // "o-1"
//
// # Adding a version or an event
//
// A version never changes once it is on the main branch: its checksum stands in
// versions.sum, and `make verify` refuses an edited file. A change is a new file with the
// next number, in which every added field has a default. Then `make generate`, and point the
// embed line in events.go at the new file. A new event also gets its methods and its place
// in the list there. While a version is still on your own branch, take its line out of
// versions.sum to edit it.
//
// # Why structs of the newest version only
//
// Context: records of every version that was ever published are read for as long as a topic
// keeps them, and consumers are deployed before and after their producers. Decision: all
// versions of an event are compatible with each other in both directions (compat_test.go), so
// that code knows one struct, the newest, and the codec brings whatever was written into
// it. Cost: a field can be added only with a default, and nothing is ever renamed.
//
// # Why the code for the bytes is generated
//
// Context: a library that goes by the schema at run time takes two to five times as long as
// code that names the fields, old versions included, and every event is encoded once and
// decoded by each of its consumers. Decision: events.gen.go has that code, made of the pieces
// in avro.go; pkg/codec uses it where the writer's schema is one of ours, and goes by the
// schema everywhere else. What there is no code for (maps, unions of several types, other
// logical types than timestamp-millis, ...) the generator names in a comment: that event, or
// that old version, goes by the schema. Cost: two ways to read the same bytes, which
// avro_internal_test.go compares, damaged bytes included.
package schemas

//go:generate go run ./internal/generate
