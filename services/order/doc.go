// Package order takes orders and sees them through: it owns the saga.
//
// An order is placed (OrderPlaced), waits for inventory's answer (StockReserved or
// StockRejected), and settles (OrderConfirmed or OrderRejected). Its customer may cancel it,
// and a deadline does when no answer comes (OrderCancelled); inventory then gives back what
// it had reserved (StockReleased).
//
// Read order.go for the rules, service.go for the verbs, run.go for how it is put together.
//
// # Why the order row has a version
//
// Context: events of one order must reach their topic in the order of the changes they
// report. Decision: every change that causes an event raises the row's version in the same
// transaction, which locks the row until the commit; the version travels with the event.
// Cost: changes of one order run one after the other, which they have to anyway.
package order
