package emitter

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

// Emitter hands events of one type to its listeners. The zero value is ready to use; it
// must not be copied. All methods are safe for concurrent use, also from a listener.
type Emitter[E any] struct {
	// OnPanic is told what a listener panicked with, in the goroutine that it ran in. Nil
	// logs it with slog's default logger. Set it before the first event.
	OnPanic func(recovered any)

	mu        sync.Mutex
	listeners []*listener[E] // replaced, never changed: Emit reads it without the lock
	closed    bool
	running   sync.WaitGroup // the goroutines of asynchronous listeners
}

// listener is one registered function. Its queue is nil if it is synchronous.
type listener[E any] struct {
	fn      func(context.Context, E)
	removed atomic.Bool

	mu     sync.Mutex // held to send on queue and to close it
	ended  bool
	queued chan item[E]
}

type item[E any] struct {
	ctx   context.Context
	event E
}

// On registers fn to be called by every Emit, in its goroutine and in the order of
// registration. After off has returned no new call begins; one that has begun elsewhere
// may still be running. off may be called more than once.
func (e *Emitter[E]) On(fn func(context.Context, E)) (off func()) {
	l := &listener[E]{fn: fn}
	e.add(l)
	return func() { e.remove(l) }
}

// OnAsync registers fn to be called in a goroutine of its own, one event after the other,
// with the values of Emit's context but not its end. Up to queue events wait for it (at
// least 1); when they are that many, the oldest is dropped for the new one, so that a
// listener that lags sees the latest. After off has returned no new call begins, and what
// was waiting is dropped. On a closed emitter fn is never called.
func (e *Emitter[E]) OnAsync(queue int, fn func(context.Context, E)) (off func()) {
	l := &listener[E]{fn: fn, queued: make(chan item[E], max(queue, 1))}
	if e.add(l) {
		go e.drain(l)
	}
	return func() { e.remove(l) }
}

// Emit hands the event to all listeners: it returns when the synchronous ones have, and
// never waits for an asynchronous one. A listener that panics stops neither the others nor
// the caller. Listeners that are added meanwhile do not see the event. On a closed emitter
// it does nothing.
func (e *Emitter[E]) Emit(ctx context.Context, event E) {
	e.mu.Lock()
	listeners := e.listeners
	e.mu.Unlock()
	for _, l := range listeners {
		if l.queued == nil {
			e.call(ctx, l, event)
		} else {
			l.push(item[E]{context.WithoutCancel(ctx), event})
		}
	}
}

// Close ends the emitter: it accepts no further event, and waits until the asynchronous
// listeners have handled what was waiting for them, or until ctx ends, which is then the
// error. A listener must not call it.
func (e *Emitter[E]) Close(ctx context.Context) error {
	e.mu.Lock()
	listeners := e.listeners
	e.listeners, e.closed = nil, true
	e.mu.Unlock()
	for _, l := range listeners {
		l.end()
	}
	done := make(chan struct{})
	go func() {
		e.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add reports whether the emitter took the listener.
func (e *Emitter[E]) add(l *listener[E]) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.listeners = append(slices.Clip(e.listeners), l)
	if l.queued != nil {
		e.running.Add(1) // under the lock: Close must see it
	}
	return true
}

func (e *Emitter[E]) remove(l *listener[E]) {
	l.removed.Store(true)
	e.mu.Lock()
	e.listeners = slices.DeleteFunc(slices.Clone(e.listeners), func(o *listener[E]) bool { return o == l })
	e.mu.Unlock()
	l.end()
}

func (e *Emitter[E]) drain(l *listener[E]) {
	defer e.running.Done()
	for it := range l.queued {
		e.call(it.ctx, l, it.event)
	}
}

func (e *Emitter[E]) call(ctx context.Context, l *listener[E], event E) {
	if l.removed.Load() {
		return
	}
	defer func() {
		r := recover()
		switch {
		case r == nil:
		case e.OnPanic != nil:
			e.OnPanic(r)
		default:
			slog.ErrorContext(ctx, "listener panicked", "panic", r)
		}
	}()
	l.fn(ctx, event)
}

// push puts an event into the queue, in place of the oldest if there is no room.
func (l *listener[E]) push(it item[E]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended {
		select {
		case l.queued <- it:
			return
		default:
		}
		select {
		case <-l.queued:
		default: // the listener has just taken one: there is room now
		}
	}
}

// end lets the listener's goroutine finish what is queued and return.
func (l *listener[E]) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queued != nil && !l.ended {
		close(l.queued)
	}
	l.ended = true
}
