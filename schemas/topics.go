package schemas

import (
	"slices"
	"strings"
	"time"
)

// The topics that services publish events to: one per aggregate, so that all events of one
// order keep their order.
const (
	TopicOrders    = "orders"
	TopicInventory = "inventory"
	TopicEmails    = "emails"
)

// Topic declares a topic of the broker.
type Topic struct {
	Name string
	// Partitions never changes once the topic is in use: it decides where a key's records
	// are.
	Partitions int32
	// Retention is how long the broker keeps a record. Until then a consumer remembers the
	// record's event, so that a replay has no second effect.
	Retention time.Duration
}

const (
	partitions = 6
	retention  = 72 * time.Hour
	// Copies of dead letters are for people, who may come back from a holiday.
	deadLetterRetention = 14 * 24 * time.Hour
)

// Topics returns every topic of the shop. The topic "<topic>.<service>.dlt" takes copies of
// what the service's consumer group could not handle, with as many partitions as its source.
func Topics() []Topic {
	return []Topic{
		{TopicOrders, partitions, retention},
		{TopicOrders + ".inventory.dlt", partitions, deadLetterRetention},
		{TopicOrders + ".email.dlt", partitions, deadLetterRetention},
		{TopicInventory, partitions, retention},
		{TopicInventory + ".order.dlt", partitions, deadLetterRetention},
		{TopicEmails, partitions, retention},
	}
}

// DeadLetters splits a name "<topic>.<service>.dlt". The topic's may have dots, such as
// "orders.v2", a service's has none. Of other names ok is false.
func DeadLetters(name string) (topic, service string, ok bool) {
	source, dead := strings.CutSuffix(name, ".dlt")
	dot := strings.LastIndexByte(source, '.')
	if !dead || dot < 0 {
		return "", "", false
	}
	return source[:dot], source[dot+1:], true
}

// Service is what one service does with the topics: what it may do at the brokers follows
// from there.
type Service struct {
	Publishes   []string
	Consumes    []string
	DeadLetters []string // where the copies go, by the topics that it consumes
}

// Services returns all services by their names. A service publishes the events whose files
// are <service>/<event>.v<number>.avsc, and consumes the topics that have another one for its
// dead letters.
func Services() map[string]Service {
	all := map[string]Service{}
	for _, e := range events {
		name, _, _ := strings.Cut(e.files, "/")
		if s := all[name]; !slices.Contains(s.Publishes, e.payload.Topic()) {
			s.Publishes = append(s.Publishes, e.payload.Topic())
			all[name] = s
		}
	}
	for _, t := range Topics() {
		if topic, name, ok := DeadLetters(t.Name); ok {
			s := all[name]
			s.Consumes, s.DeadLetters = append(s.Consumes, topic), append(s.DeadLetters, t.Name)
			all[name] = s
		}
	}
	return all
}
