// Package all runs the whole shop in one process: an embedded Kafka, schema registry and
// mailbox, SQLite files, and the three services, each through the same Run as in production.
// Where a variable names a real part, that one is used instead.
//
// Read all.go for the order in which things start; parts.go for what is embedded; page.go for
// the page at /.
package all
