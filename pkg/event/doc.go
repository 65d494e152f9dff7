// Package event holds the words that every other package shares: the payload that a
// service defines, the event around it, the record that carries it, and the rules by which
// IDs and headers are made.
//
// A payload is a struct generated from its Avro schema, with three methods:
//
//	func (OrderPlaced) Schema() string { return orderPlaced }
//	func (OrderPlaced) Topic() string  { return TopicOrders }
//	func (e OrderPlaced) Key() string  { return e.OrderID }
//
// # Why the headers are CloudEvents
//
// Context: a consumer in another language must find an event's ID, source and time without
// knowing us. Decision: the Kafka binding of CloudEvents 1.0 in binary mode, and W3C trace
// context, both as record headers; the value stays plain registry-framed Avro. Cost: about
// 300 bytes of headers per record, and none of them is required of a foreign producer: what
// is absent is derived from the record's position.
package event
