// Command smoke tells whether the shop in the current cluster works: three orders that end
// differently, each with its mail and its trace in Jaeger, and many orders while a pod of each
// service is killed. It needs kubectl, and changes nothing but the shop's own orders.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	s := &smoke{out: os.Stdout}
	flag.StringVar(&s.cluster.context, "context", "", "the kubectl `context`; the current one unless told otherwise")
	flag.StringVar(&s.cluster.namespace, "namespace", "keyline", "the shop's `namespace`")
	flag.IntVar(&s.crowd, "orders", 200, "so many orders while pods are killed; 0 kills nothing")
	patience := flag.Duration("timeout", 10*time.Minute, "give up after so long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, *patience)
	begun := time.Now()
	err := s.run(ctx)
	cancel()
	stop()
	s.close()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w (after %v)", err, *patience)
		}
		fmt.Fprintf(os.Stderr, "smoke: %v\nnext: kubectl -n %s get pods; kubectl -n %s logs %s\n", err, s.cluster.namespace, s.cluster.namespace, cmp.Or(s.suspect, "deploy/console"))
		os.Exit(1)
	}
	s.say("\nit works: all of that in %.0f s", time.Since(begun).Seconds())
}
