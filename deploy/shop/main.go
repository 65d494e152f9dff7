// Command shop does to the shop in the current cluster what its users, its operator and accidents
// do. Its first word says what; without one it lists the words.
//
//	go run ./deploy/shop smoke
//
// It needs kubectl. "smoke" tells whether the shop works, and is `make smoke`; the others are the
// buttons of the Tiltfile.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// verb is one thing to do.
type verb struct {
	name, what string
	do         func(*run, context.Context) error
}

var verbs = []verb{
	{"smoke", "three orders with their mails and traces, and 200 (-orders) while pods are killed; fails unless all is right", (*run).smoke},
	{"place", "an order, or as many as -orders says", (*run).placeSome},
	{"duplicate", "the newest event of the topic orders once more, with its ID: nothing may happen", (*run).duplicate},
	{"poison", "bytes that nobody can decode, to the topic orders: they become dead letters, and hold nothing up", (*run).poison},
	{"smtp-down", "the mail server refuses all mails for now: they wait, and all else goes on", (*run).mailsDown},
	{"smtp-up", "it takes mails again: those that waited leave by themselves", (*run).mailsUp},
	{"kill", "a consumer's pod, that of inventory unless -service says otherwise, without warning", (*run).killOne},
	{"letters", "what waits, dead letters first of all, as the console tells it", (*run).letters},
	{"redrive", "all dead letters, in their places", (*run).redrive},
	{"reset", "all data, for good: topics, schemas, databases, mails", (*run).reset},
}

func main() {
	flag.Usage = usage
	if len(os.Args) < 2 {
		usage()
		os.Exit(2)
	}
	word := os.Args[1]
	r := &run{out: os.Stdout}
	flag.StringVar(&r.cluster.context, "context", "", "the kubectl `context`; the current one unless told otherwise")
	flag.StringVar(&r.cluster.namespace, "namespace", "keyline", "the shop's `namespace`")
	flag.IntVar(&r.orders, "orders", -1, "how `many`")
	flag.StringVar(&r.service, "service", "inventory", "order, inventory or email")
	patience := flag.Duration("timeout", 10*time.Minute, "give up after so long")
	_ = flag.CommandLine.Parse(os.Args[2:]) // ends the program itself
	for _, v := range verbs {
		if v.name == word && flag.NArg() == 0 {
			os.Exit(r.exit(v, *patience))
		}
	}
	usage()
	os.Exit(2)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go run ./deploy/shop WORD [flags]\n\nwords:")
	for _, v := range verbs {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", v.name, v.what)
	}
	fmt.Fprintln(os.Stderr, "\nflags:")
	flag.PrintDefaults()
}

// exit does it, and returns the exit status.
func (r *run) exit(v verb, patience time.Duration) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Without the shop everything below would wait for it in vain.
	_, err := r.cluster.kubectl(ctx, "get", "service/order", "-o", "name")
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: there is no shop: %v\nnext: make doctor; make up, or kubectl apply -k deploy/overlays/local\n", v.name, err)
		return 1
	}
	err = v.do(r, ctx)
	r.close()
	if err == nil {
		return 0
	}
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("%w (after %v)", err, patience)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\nnext: kubectl -n %s get pods; kubectl -n %s logs %s\n",
		v.name, err, r.cluster.namespace, r.cluster.namespace, cmp.Or(r.suspect, "deploy/console"))
	return 1
}
