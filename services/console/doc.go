// Package console is the operator's view of the running system: what waits and why, how far
// the groups are behind, what was published, what is not published yet, and the means to
// mend it. [Run] is the command line; a [Console] is the same for other front ends.
//
// It asks the services' operator routes, Kafka and the schema registry, never a service's
// database: what an operator may do is what the owner of the data offers.
//
//	c, err := console.Open(console.Config{Environ: environ, Dir: "."})
//	groups, err := c.Summary(ctx, console.Filter{State: "dead"})
//	_, err = c.Redrive(ctx, groups[0].Example, false)
package console
