package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaThere reports whether a Kafka of .ci/rig could be started without fetching anything.
func (s *starting) kafkaThere() bool {
	cache, err := os.UserCacheDir()
	if err != nil {
		return false
	}
	jars, _ := filepath.Glob(filepath.Join(cache, "keyline", "kafka-*"))
	_, err = exec.LookPath("java")
	return err == nil && len(jars) > 0
}

// kafka starts one on a folder that it has formatted at its first start.
func (s *starting) kafka(ctx context.Context, _ int, w *watch) error {
	for len(s.ports) < 2 {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.ports = append(s.ports, strconv.Itoa(port))
	}
	script, err := filepath.Abs(filepath.Join(repository, ".ci", "rig", "broker"))
	if err != nil {
		return err
	}
	cmd := exec.Command(script, filepath.Join(s.dir, "jvm"), s.ports[0], s.ports[1], s.ports[0])
	return s.timed(ctx, cmd, w, func(ctx context.Context) error {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			err := ping(ctx, "127.0.0.1:"+s.ports[0])
			if err == nil {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return err
			}
		}
	})
}

// ping is a client of its own, which has not failed before and waits for nothing.
func ping(ctx context.Context, addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics(), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	return cl.Ping(ctx)
}
