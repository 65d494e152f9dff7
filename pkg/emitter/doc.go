// Package emitter carries events inside one process: typed listeners, added and removed
// while the program runs, called in the emitter's goroutine or in one of their own.
//
//	var placed emitter.Emitter[string]
//	off := placed.On(func(_ context.Context, id string) { fmt.Println("placed", id) })
//	placed.Emit(ctx, "A1") // prints "placed A1"
//	off()
//
// # Why it may lose events
//
// Context: a commit has something to say in its own process: wake the relay, answer a
// waiting request, draw the live page. Decision: such an event is a hint about what is
// already durable, so a slow asynchronous listener loses the oldest of its queue, and
// nobody ever waits for it. Cost: what must not be lost goes through the outbox instead.
package emitter
