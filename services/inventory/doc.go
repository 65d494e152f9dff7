// Package inventory keeps the stock and reserves it for orders, all lines of an order or
// none.
//
// The stock of an article is a small event-sourced aggregate: its movements (received,
// reserved, released) are appended with versions and never changed, and its state is their
// fold. Read inventory.go for the rules, ledger.go for how they are kept, run.go for how the
// service is put together.
//
// # Why event sourcing here, and only here
//
// Context: whoever counts goods asks how a number came about, and what it was last Tuesday.
// Decision: the movements are the truth. The row in stock is the fold up to the newest
// movement, written in the same transaction, so that a reservation reads one row; the
// state is kept in stock_snapshot by the first transaction that passes a hundred movements,
// so that a look into the past folds those and one batch at most. Movements of an article
// never go back in time, whatever the clocks say, so that a look into the past sees a
// beginning of the ledger. Cost: a row per movement for ever. An order is not kept this way:
// nobody asks for yesterday's order, and its topic tells what happened to it.
//
// # Why orders are worked on in batches
//
// Context: popular articles are locked by many orders at once, and two transactions that
// lock articles one after the other meet in a deadlock. Decision: a batch of orders locks
// all articles it needs in one statement, sorted, and writes in a handful of statements.
// Cost: a batch that fails is done again one by one.
package inventory
