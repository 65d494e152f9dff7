package inventory

import (
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/schemas"
)

// payloads are the events that this service writes or reads.
func payloads() []event.Payload {
	return []event.Payload{
		schemas.OrderPlaced{}, schemas.OrderCancelled{},
		schemas.StockReserved{}, schemas.StockRejected{}, schemas.StockReleased{},
	}
}

func (s *Service) register(in *inbox.Inbox) {
	inbox.HandleBatch(in, s.Reserve)
	inbox.HandleBatch(in, s.Release)
}
