package main

import (
	"context"
	"io"

	"example.com/keyline/services/all"
	"example.com/keyline/services/order"
)

// serveKeyline runs our three services, told by their documented variables only. Orders go
// straight to the order service: the page in front of all three is a convenience of `make run`,
// and not deployed.
//
// Of the traces one in a hundred is recorded, as under load, and none is exported; the trace
// context goes through all of them.
func serveKeyline(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error {
	var at shopAddrs
	return all.Run(ctx, all.Config{
		Out: io.Discard,
		Environ: map[string]string{
			"KAFKA_BROKERS": cfg.Broker, "KAFKA_GROUP": cfg.Prefix, "DATABASE_URL": cfg.Database, "SMTP_ADDR": cfg.SMTP,
			"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01",
		},
		Tune: func(c any) {
			if c, ok := c.(*order.Config); ok {
				at.Orders = c.Service.Listener.Addr().String()
			}
		},
		Started: func(s *all.Shop) {
			at.Stock = s.URLs.HTTP[len("http://"):]
			opened(at)
		},
	})
}
