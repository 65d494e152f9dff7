// Package email tells customers by mail how their orders were settled, once per settling
// event.
//
// Read email.go for what a mail says, service.go for when it is sent, run.go for how the
// service is put together.
//
// # Why a mail is a slow effect with a ledger
//
// Context: a mail cannot be part of a transaction, and a crash between the sending and the
// note of it cannot be ruled out. Decision: the inbox runs it outside any transaction, under
// a claim; a row says that it is about to be sent, and then that it was; the Message-ID is
// derived from the event's ID. Cost: after a crash between the two a mail may go out again,
// under the same Message-ID, by which mail programs and people recognise it.
package email
