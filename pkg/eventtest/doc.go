// Package eventtest tests the handlers of a service: that the effect of each event happens
// once and in the order of its key, whatever happens around the handlers. Only tests import
// it.
//
//	var contract = eventtest.NewContract(schemas.Topics(), schemas.Subjects())
//
//	func TestHandlers(t *testing.T) {
//		eventtest.Trial{
//			Contract: contract,
//			Service:  eventtest.NewService("stock", stock.Run),
//			Events:   []event.Payload{placed("o-1"), placed("o-2"), cancelled("o-1")},
//			State:    func(r *eventtest.Rig) any { return eventtest.Get[any](r, "/v1/stock/tea") },
//		}.Run(t)
//	}
//
// A [Trial] runs the same events under several schedules: one after the other, all at once,
// delivered twice, out of order across keys, with the service killed and started again in the
// middle, and with a rebalance in the middle. Each ends in the same state and emits the same
// events, or the test fails with the schedule, its seed and the difference.
//
// A [Rig] is what a trial stands on, for tests that tell a story of their own: a service that
// really runs, on an embedded Kafka, with a registry, a mailbox and a database. [Parts] is the
// ground of a handler without any of that running, for tests that hand it events directly.
//
// # What a kill is
//
// The service is not a process of its own, so its memory cannot be taken away. What it can do
// with it can: a killed replica's connections to Kafka and to the database break at once, and
// what it had not committed is rolled back. A mail or a call that its goroutines begin in
// their last milliseconds still leaves, and counts as sent before the kill.
package eventtest
