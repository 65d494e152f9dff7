package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// empty is a broker and a registry that hold nothing, and no service.
func empty(t *testing.T, port int) map[string]string {
	t.Helper()
	k, err := embedded.StartKafka(embedded.KafkaConfig{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return map[string]string{"KAFKA_BROKERS": k.Addr(), "SCHEMA_REGISTRY_URL": emptyRegistry(t)}
}

func emptyRegistry(t *testing.T) string {
	t.Helper()
	r, err := embedded.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(r)
	t.Cleanup(func() { srv.Close(); _ = r.Close() })
	return srv.URL
}

func TestProvision(t *testing.T) {
	t.Parallel()

	t.Run("from nothing, before any service, and again without a change", func(t *testing.T) {
		t.Parallel()
		environ := empty(t, 0)
		run(t, environ, "provision", "--plan").want(t, 4, "orders.email.dlt", "6 partitions, kept for 336h0m0s", "orders-shop.order.OrderPlaced", "version 2", "create", "next: console provision")
		run(t, environ, "provision", "--plan").want(t, 4, "orders.email.dlt") // it has changed nothing
		run(t, environ, "provision").want(t, 0, "create", fmt.Sprintf("all %d topics and %d schemas are as declared", len(schemas.Topics()), len(schemas.Subjects())))
		a := run(t, environ, "provision", "--json")
		var done struct{ Items []struct{ Name string } }
		if err := json.Unmarshal([]byte(a.out), &done); err != nil || a.code != 0 || len(done.Items) != 0 {
			t.Errorf("the second time: %v, %+v, exit code %d", err, done, a.code)
		}
		run(t, environ, "provision", "--plan").want(t, 0, "as declared")
		run(t, environ, "tail").want(t, 3, "no record since 1h")
		run(t, environ, "lag").want(t, 3, "no group has read anything yet")
	})

	t.Run("corrects what may be corrected", func(t *testing.T) {
		t.Parallel()
		environ := empty(t, 0)
		cfg := kafka.Config{Brokers: []string{environ["KAFKA_BROKERS"]}}
		run(t, environ, "provision").want(t, 0)
		all := schemas.Topics()
		if err := kafka.Provision(t.Context(), cfg, []kafka.Topic{{Name: all[0].Name, Partitions: all[0].Partitions, Retention: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		run(t, environ, "provision", "--plan").want(t, 4, "retention", "1h0m0s", "72h0m0s", "change")
		run(t, environ, "provision").want(t, 0, "retention")
		run(t, environ, "provision", "--plan").want(t, 0)
	})

	t.Run("may remove records only when told to, and does the rest", func(t *testing.T) {
		t.Parallel()
		environ := empty(t, 0)
		cfg := kafka.Config{Brokers: []string{environ["KAFKA_BROKERS"]}}
		all := schemas.Topics()
		cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		month, small, compact := "2592000000", "1000", "compact"
		for i, settings := range []map[string]*string{{"retention.ms": &month, "max.message.bytes": &small}, {"cleanup.policy": &compact, "max.message.bytes": &small}} {
			if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), all[i].Partitions, 1, settings, all[i].Name); err != nil {
				t.Fatal(err)
			}
		}
		run(t, environ, "provision", "--plan").want(t, 4, "720h0m0s", "confirm", "next: console provision\n")
		a := run(t, environ, "provision")
		a.want(t, 1, "720h0m0s", "confirm", "records that are there may be removed", "create", "next: console provision --yes\n")
		a = run(t, environ, "provision", "--plan")
		a.want(t, 4, "720h0m0s", "compact", "it is done with the topic's other changes")
		if strings.Contains(a.out, "create") || strings.Contains(a.out, " change ") {
			t.Errorf("the rest is not done:\n%s", a.out)
		}
		var left struct {
			Items  []struct{ Action string }
			Errors []struct{ Next string }
		}
		if a := run(t, environ, "provision", "--json"); json.Unmarshal([]byte(a.out), &left) != nil || a.code != 1 || len(left.Items) < 2 || left.Items[0].Action != "confirm" || len(left.Errors) != 1 {
			t.Errorf("exit code %d, %s, want what is to be confirmed, and an error", a.code, a.out)
		}
		run(t, environ, "provision", "--yes").want(t, 0, "720h0m0s", "change")
		run(t, environ, "provision", "--plan").want(t, 0, "as declared")
	})

	t.Run("refuses what never changes", func(t *testing.T) {
		t.Parallel()
		all := schemas.Topics()
		cfg := kafka.Config{}
		environ := empty(t, 0)
		cfg.Brokers = []string{environ["KAFKA_BROKERS"]}
		if err := kafka.Provision(t.Context(), cfg, []kafka.Topic{{Name: all[0].Name, Partitions: 2}}); err != nil {
			t.Fatal(err)
		}
		run(t, environ, "provision", "--plan").want(t, 4, "partitions", "refuse", "never changes")
		begun := time.Now()
		run(t, environ, "provision", "--wait", "60s").want(t, 1, "nothing was done to any topic", "partitions is 2, declared is 6", "next: mend that first")
		if time.Since(begun) > 30*time.Second {
			t.Error("it has tried again what nothing would mend")
		}
	})

	t.Run("waits for brokers that come later, and not for ever", func(t *testing.T) {
		t.Parallel()
		addr, port := eventtest.FreeAddr(t)
		environ := map[string]string{"KAFKA_BROKERS": addr, "SCHEMA_REGISTRY_URL": emptyRegistry(t)}
		run(t, environ, "provision").want(t, 1, "no broker answers", "console provision --wait 60s\n")
		run(t, environ, "provision", "--plan").want(t, 1, "no broker answers", "console provision --plan --wait 60s\n")
		run(t, environ, "provision", "--plan", "--wait", "300ms").want(t, 1, "not yet, trying again")
		late := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			defer close(late)
			select {
			case <-time.After(500 * time.Millisecond):
				k, err := embedded.StartKafka(embedded.KafkaConfig{Port: port})
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = k.Close() })
			case <-ctx.Done():
			}
		}()
		run(t, environ, "provision", "--wait", "60s").want(t, 0, "not yet, trying again", "as declared")
		<-late
	})

	t.Run("says which of the two does not answer, and does the other", func(t *testing.T) {
		t.Parallel()
		environ := empty(t, 0)
		registry := environ["SCHEMA_REGISTRY_URL"]
		environ["SCHEMA_REGISTRY_URL"] = "http://127.0.0.1:1"
		run(t, environ, "provision").want(t, 1, "schemas:", "orders.email.dlt")
		environ["SCHEMA_REGISTRY_URL"] = registry
		run(t, environ, "provision").want(t, 0, "orders-shop.order.OrderPlaced")
		run(t, map[string]string{"SCHEMA_REGISTRY_URL": registry}, "provision").want(t, 1, "KAFKA_BROKERS is missing")
		run(t, environ, "provision", "--plan", "--yes").want(t, 2, "either --plan")
		run(t, environ, "provision", "--wait", "-1s").want(t, 2, "--wait must be 0 or more")
	})
}
