package schemas

import (
	"embed"
	"fmt"
)

// The newest version of each event's schema.
var (
	//go:embed order/order_placed.v2.avsc
	orderPlaced string
	//go:embed order/order_confirmed.v1.avsc
	orderConfirmed string
	//go:embed order/order_rejected.v1.avsc
	orderRejected string
	//go:embed order/order_cancelled.v1.avsc
	orderCancelled string
	//go:embed inventory/stock_reserved.v1.avsc
	stockReserved string
	//go:embed inventory/stock_rejected.v1.avsc
	stockRejected string
	//go:embed inventory/stock_released.v1.avsc
	stockReleased string
	//go:embed email/email_sent.v1.avsc
	emailSent string
)

// events lists every event with its full name and its files, up to the version.
var events = []struct {
	payload interface{ Topic() string }
	name    string
	files   string
}{
	{OrderPlaced{}, "shop.order.OrderPlaced", "order/order_placed"},
	{OrderConfirmed{}, "shop.order.OrderConfirmed", "order/order_confirmed"},
	{OrderRejected{}, "shop.order.OrderRejected", "order/order_rejected"},
	{OrderCancelled{}, "shop.order.OrderCancelled", "order/order_cancelled"},
	{StockReserved{}, "shop.inventory.StockReserved", "inventory/stock_reserved"},
	{StockRejected{}, "shop.inventory.StockRejected", "inventory/stock_rejected"},
	{StockReleased{}, "shop.inventory.StockReleased", "inventory/stock_released"},
	{EmailSent{}, "shop.email.EmailSent", "email/email_sent"},
}

// Schema is the newest version of the event's schema, as JSON.
func (OrderPlaced) Schema() string { return orderPlaced }

// Topic is TopicOrders.
func (OrderPlaced) Topic() string { return TopicOrders }

// Key is the order's ID.
func (e OrderPlaced) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (OrderConfirmed) Schema() string { return orderConfirmed }

// Topic is TopicOrders.
func (OrderConfirmed) Topic() string { return TopicOrders }

// Key is the order's ID.
func (e OrderConfirmed) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (OrderRejected) Schema() string { return orderRejected }

// Topic is TopicOrders.
func (OrderRejected) Topic() string { return TopicOrders }

// Key is the order's ID.
func (e OrderRejected) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (OrderCancelled) Schema() string { return orderCancelled }

// Topic is TopicOrders.
func (OrderCancelled) Topic() string { return TopicOrders }

// Key is the order's ID.
func (e OrderCancelled) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (StockReserved) Schema() string { return stockReserved }

// Topic is TopicInventory.
func (StockReserved) Topic() string { return TopicInventory }

// Key is the order's ID.
func (e StockReserved) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (StockRejected) Schema() string { return stockRejected }

// Topic is TopicInventory.
func (StockRejected) Topic() string { return TopicInventory }

// Key is the order's ID.
func (e StockRejected) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (StockReleased) Schema() string { return stockReleased }

// Topic is TopicInventory.
func (StockReleased) Topic() string { return TopicInventory }

// Key is the order's ID.
func (e StockReleased) Key() string { return e.OrderID }

// Schema is the newest version of the event's schema, as JSON.
func (EmailSent) Schema() string { return emailSent }

// Topic is TopicEmails.
func (EmailSent) Topic() string { return TopicEmails }

// Key is the order's ID.
func (e EmailSent) Key() string { return e.OrderID }

// Subject is what the schema registry has to know of one event.
type Subject struct {
	// Name is "<topic>-<full name of the event>".
	Name string
	// Versions are all versions of the schema, as JSON, oldest first.
	Versions []string
}

//go:embed */*.avsc
var files embed.FS

// Subjects returns all events with all their versions.
func Subjects() []Subject {
	subjects := make([]Subject, len(events))
	for i, e := range events {
		subjects[i].Name = e.payload.Topic() + "-" + e.name
		for n := 1; ; n++ {
			text, err := files.ReadFile(fmt.Sprintf("%s.v%d.avsc", e.files, n))
			if err != nil {
				break // versions count without gaps, so this one does not exist yet
			}
			subjects[i].Versions = append(subjects[i].Versions, string(text))
		}
	}
	return subjects
}
