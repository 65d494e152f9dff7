package main

import (
	"context"
	"errors"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
)

// watermill subscribes and acknowledges; what is in a message it is not asked.
func (c *consuming) watermill(ctx context.Context, n int, w *watch) error {
	cfg := watermillkafka.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	w.start()
	sub, err := watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: []string{c.broker.addr}, Unmarshaler: watermillkafka.DefaultMarshaler{},
		OverwriteSaramaConfig: cfg, ConsumerGroup: c.newGroup(),
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	messages, err := sub.Subscribe(ctx, c.topic)
	if err != nil {
		return errors.Join(err, sub.Close())
	}
	for range n {
		select {
		case m := <-messages:
			m.Ack()
		case <-ctx.Done():
			return errors.Join(ctx.Err(), sub.Close())
		}
	}
	w.stop()
	return sub.Close()
}
