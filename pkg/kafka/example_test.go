package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kfake"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// printer is a processor that is done with a record when it has printed it.
type printer struct{ done func() }

func (p printer) Process(_ context.Context, b event.Batch) error {
	for _, r := range b.Records {
		fmt.Printf("%s %s\n", r.Key, r.Value)
	}
	p.done()
	return nil
}

func Example() {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := kafka.Config{Brokers: broker.ListenAddrs(), Group: "email"}

	if err := kafka.Provision(ctx, cfg, []kafka.Topic{{Name: "orders", Partitions: 6}}); err != nil {
		log.Fatal(err)
	}
	producer, err := kafka.NewProducer(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	window := []event.Record{
		{Topic: "orders", Key: []byte("order-1"), Value: []byte("placed")},
		{Topic: "orders", Key: []byte("order-1"), Value: []byte("confirmed")},
	}
	if errs := producer.Publish(ctx, window); errs != nil {
		log.Fatal(errors.Join(errs...))
	}
	consumer, err := kafka.NewConsumer(cfg, []string{"orders"}, printer{done: cancel})
	if err != nil {
		log.Fatal(err)
	}
	if err := consumer.Run(ctx); err != nil { // until ctx ends
		log.Fatal(err)
	}
	// Output:
	// order-1 placed
	// order-1 confirmed
}
