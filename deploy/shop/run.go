package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
)

// run is one run of this program. What it makes in the shop is named after it.
type run struct {
	out     io.Writer
	cluster cluster
	orders  int // how many; below 0 is what the verb takes for usual
	service string
	suspect string // whose log tells more, should it fail

	id                                 string
	intake, inventory, mailbox, jaeger *forward
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// open opens the ways to the shop. They are closed by close.
func (r *run) open() {
	r.id = strings.ToLower(rand.Text()[:10])
	r.intake = r.cluster.forward("service/order", 8080)
	r.inventory = r.cluster.forward("service/inventory", 8080)
	r.mailbox = r.cluster.forward("service/mailpit", 8025)
	r.jaeger = r.cluster.forward("service/jaeger", 16686)
}

func (r *run) close() {
	for _, f := range []*forward{r.intake, r.inventory, r.mailbox, r.jaeger} {
		if f != nil {
			f.close()
		}
	}
}
