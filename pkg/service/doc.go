// Package service is the skeleton of a process: its variables and signals, the HTTP server
// with its probes, parts that run together, and an ordered stop.
//
//	func main() { service.Main("order", order.Run) }
//
//	func Run(ctx context.Context, cfg Config) error {
//		…
//		s := service.Service{
//			Name: "order", Config: cfg.Service, Telemetry: t, Public: routes,
//			Prepare: []service.Step{{Name: "migrate the database", Run: migrate}},
//			Parts:   []service.Part{{Name: "consumer", Run: consumer.Run}, {Name: "relay", Run: relay.Run}},
//			Checks:  []service.Check{{Name: "database", Run: d.Ping}},
//		}
//		return s.Run(ctx)
//	}
//
// # Why the service prepares while it already answers probes
//
// Context: at the start a broker, a registry or a database may be down for long. Decision:
// the HTTP server comes first, live but not ready; the steps are tried until they succeed,
// each failure logged with what failed; then the parts start. Cost: a wrong address shows
// in the log and in /readyz?verbose, not as a failed start.
//
// # Why a stop is in this order
//
// Context: whatever is under way must be finished by something that still runs. Decision:
// not ready, HTTP, the parts in their order (consumers, then the relay that publishes what
// they appended), what they used, and telemetry last, which saw all of it. Long polls get
// 2 seconds. Cost: one slow part uses up the time of those behind it.
//
// # Why requests are observed by code of our own
//
// Context: otelhttp has a type of writer for each combination of what else a writer can do,
// 4,100 functions and 1.5 MB in every service; and it writes down the attributes of spans
// that nobody records. Decision: observe.go, which reports the same under the same names, of a
// metric's labels those that the package telemetry lets through, and beside it error.type, the
// method QUERY, and requests whose answer a panic has cut. Cost: when the conventions change we
// follow by hand.
package service
