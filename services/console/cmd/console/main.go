// Command console is the operator's command line: console --help tells how.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"example.com/keyline/services/console"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(console.Run(ctx, console.Config{Environ: environ(), Name: console.CalledAs(os.Args[0])}, os.Args[1:], os.Stdout, os.Stderr))
}

func environ() map[string]string {
	vars := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		vars[name] = value
	}
	return vars
}
