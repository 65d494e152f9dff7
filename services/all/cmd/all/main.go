// Command all runs the whole shop in one process. `make run` starts it.
package main

import (
	"context"
	"os"
	"strings"

	"example.com/keyline/pkg/service"
	"example.com/keyline/services/all"
)

func main() {
	service.Main("keyline", func(ctx context.Context, cfg all.Config) error {
		cfg.Environ, cfg.URLFile = environ(), ".run/urls.json"
		return all.Run(ctx, cfg)
	})
}

func environ() map[string]string {
	vars := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		vars[name] = value
	}
	return vars
}
