package embedded_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

func TestLine(t *testing.T) {
	t.Parallel()
	broker, err := embedded.StartKafka(embedded.KafkaConfig{Topics: []embedded.Topic{{Name: "t", Partitions: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	var produced atomic.Int64
	var line embedded.Line
	line.Produced = func() {
		if produced.Add(1) == 2 {
			line.Cut()
		}
	}
	cfg := kafka.Config{Brokers: []string{broker.Addr()}}
	cfg.Opts = append(cfg.Opts, line.Option())
	producer, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	publish := func(within time.Duration) []error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return producer.Publish(ctx, []event.Record{{Topic: "t", Value: []byte("v")}})
	}
	if errs := publish(20 * time.Second); errs != nil || produced.Load() != 1 {
		t.Fatalf("Publish = %v, %d answers, want one", errs, produced.Load())
	}
	if errs := publish(time.Second); errs == nil {
		t.Error("Publish = nil, though the answer never came through")
	}
	if n := broker.Cluster().PartitionInfo("t", 0).HighWatermark; n != 2 {
		t.Errorf("the broker has %d records, want both", n)
	}
}
