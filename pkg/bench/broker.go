package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/kafka"
)

// broker is the Kafka of KAFKA_BROKERS, or an embedded one in a process of its own, so that what
// it allocates is not on the account of the clients.
type broker struct {
	addr  string
	admin *kadm.Client
	topic int // the number of the last one
}

// serveBroker is the other process: it prints the address, and ends with its input.
func serveBroker(context.Context) error {
	k, err := embedded.StartKafka(embedded.KafkaConfig{})
	if err != nil {
		return err
	}
	if _, err = fmt.Println(k.Addr()); err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return errors.Join(err, k.Close())
}

// startBroker finds or starts it at the first call; rig.close ends what it has started.
func (r *rig) startBroker() (*broker, error) {
	if r.broker != nil {
		return r.broker, nil
	}
	addr, _, _ := strings.Cut(os.Getenv("KAFKA_BROKERS"), ",")
	pid := listener(addr)
	if addr == "" {
		var err error
		if addr, pid, err = r.startEmbedded(); err != nil {
			return nil, err
		}
	}
	b := &broker{addr: addr}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.DisableClientMetrics())
	if err != nil {
		return nil, err
	}
	r.closes = append(r.closes, func() error { client.Close(); return nil })
	b.admin, r.broker = kadm.NewClient(client), b
	r.accounts = append(r.accounts, account{"broker", pid})
	return b, nil
}

func (r *rig) startEmbedded() (addr string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.Command(self, "-broker")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	r.closes = append(r.closes, func() error { return errors.Join(in.Close(), cmd.Wait()) })
	if addr, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", 0, fmt.Errorf("the broker's process: %w", err)
	}
	return strings.TrimSpace(addr), cmd.Process.Pid, nil
}

// partitions of a topic of the benchmark, as many as the shop's topics have.
const partitions = 6

// newTopic makes a topic that nothing has been written to.
func (b *broker) newTopic(ctx context.Context) (name string, err error) {
	b.topic++
	name = fmt.Sprintf("bench-%d-%d", os.Getpid(), b.topic)
	return name, kafka.Provision(ctx, kafka.Config{Brokers: []string{b.addr}},
		[]kafka.Topic{{Name: name, Partitions: partitions, Retention: time.Hour}})
}

// end returns how many records a topic has.
func (b *broker) end(ctx context.Context, topic string) (n int, err error) {
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
	return n, ends.Error()
}

func (b *broker) deleteTopic(ctx context.Context, name string) error {
	_, err := b.admin.DeleteTopic(ctx, name)
	return err
}
