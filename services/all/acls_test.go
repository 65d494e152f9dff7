package all_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
	"example.com/keyline/services/console"
	"example.com/keyline/services/email"
	"example.com/keyline/services/inventory"
	orders "example.com/keyline/services/order"
)

// guarded is a trial on brokers that allow nothing but what `console acls` tells, with a login
// for each program. The shop itself makes the topics, as provision.
type guarded struct {
	*trial
	acls []acl
}

// acl is one line of an authorizer.
type acl struct{ principal, resource, name, operation string }

func (a acl) String() string {
	return strings.Join([]string{a.principal, a.operation, a.resource, a.name}, " ")
}

const password = "a password"

func login(user string) map[string]string {
	return map[string]string{"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": user, "KAFKA_SASL_PASSWORD": password}
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	opts := []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", password)}
	for _, user := range append([]string{"provision", "console"}, services...) {
		opts = append(opts, kfake.User("PLAIN", user, password))
	}
	vars := login("provision")
	maps.Copy(vars, map[string]string{"RETRY_ATTEMPTS": "3", "RETRY_MAX_BACKOFF": "20ms"})
	f := &guarded{trial: newTrial(t, vars, opts...)}
	f.login = []kgo.Opt{kgo.SASL(plain.Auth{User: "admin", Pass: password}.AsMechanism())}
	f.cfg.Tune = func(cfg any) {
		switch c := cfg.(type) {
		case *orders.Config:
			c.Kafka.SASLUsername = "order"
		case *inventory.Config:
			c.Kafka.SASLUsername = "inventory"
		case *email.Config:
			c.Kafka.SASLUsername = "email"
		}
	}
	var told struct{ Items []console.Permission }
	f.alone("").types("console acls --json").want(t, 0).json(t, &told)
	for _, p := range told.Items {
		for _, operation := range p.Operations {
			f.acls = append(f.acls, acl{p.Principal, p.Resource, p.Name, operation})
		}
	}
	f.allow(f.acls...)
	return f
}

// filter is an ACL as it is made, or as it is found.
func (f *guarded) filter(a acl) *kadm.ACLBuilder {
	f.Helper()
	operation, err := kmsg.ParseACLOperation(a.operation)
	if err != nil {
		f.Fatal(err)
	}
	b := kadm.NewACLs().ResourcePatternType(kadm.ACLPatternLiteral).Operations(operation).Allow(a.principal).AllowHosts("*")
	if a.resource == "group" {
		return b.Groups(a.name)
	}
	return b.Topics(a.name)
}

func (f *guarded) allow(some ...acl) {
	f.Helper()
	admin, done := f.admin()
	defer done()
	for _, a := range some {
		if made, err := admin.CreateACLs(f.Context(), f.filter(a)); err != nil || len(made) != 1 || made[0].Err != nil {
			f.Fatalf("allow %s: %+v, %v", a, made, err)
		}
	}
}

func (f *guarded) forbid(some ...acl) {
	f.Helper()
	admin, done := f.admin()
	defer done()
	for _, a := range some {
		if gone, err := admin.DeleteACLs(f.Context(), f.filter(a)); err != nil || len(gone) != 1 || len(gone[0].Deleted) != 1 {
			f.Fatalf("forbid %s: %+v, %v", a, gone, err)
		}
	}
}

// operator types commands under a login of its own.
func (f *guarded) operator(user string) *operator {
	f.Helper()
	op := f.shop.operator()
	op.cfg.Environ = login(user)
	return op
}

// alone is an operator who knows of the brokers only.
func (f *guarded) alone(user string) *operator {
	f.Helper()
	op := &operator{f.shop, console.Config{Dir: f.TempDir(), Environ: login(user)}}
	op.cfg.Environ["KAFKA_BROKERS"] = f.cfg.Environ["KAFKA_BROKERS"]
	return op
}

// stir makes the services publish and consume, and each of them make a dead letter: of an
// order that its service does not know, and of bytes that are no event.
func (f *guarded) stir() accepted {
	f.Helper()
	o := f.place(line{f.articles[1], 1, 450})
	f.forge(draftOf(line{f.articles[1], 1, 450}))
	f.write(&kgo.Record{Topic: schemas.TopicOrders, Key: []byte(newKey()), Value: []byte("no event")})
	return o
}

// What `console acls` tells suffices: for an order and its mail, for dead letters, for what an
// operator looks at, and for all that provisioning does.
func TestACLs_suffice(t *testing.T) {
	t.Parallel()
	f := newGuarded(t)
	f.start()
	f.stockUp()
	o := f.stir()
	f.mails(o.OrderID, 1)
	f.cancel(o.OrderID)
	f.await(o.OrderID, "stock released")
	f.mails(o.OrderID, 2)
	f.quiet()
	for _, service := range services {
		if n := len(f.deadLetters(service)); n == 0 {
			t.Errorf("%s has copied no dead letter", service)
		}
	}
	if f.logged("AUTHORIZATION_FAILED") {
		t.Error("something was refused")
	}

	op := f.operator("console")
	op.types("console lag").want(t, 0, services...)
	f.alone("console").types("console lag").want(t, 0, services...)
	op.types("console tail --from beginning").want(t, 0, o.OrderID, "OrderPlaced", "StockReserved", "EmailSent")
	for _, topic := range schemas.Topics() {
		op.types("console tail %s --from beginning", topic.Name).want(t, 0)
	}
	op.types("console replay email orders --from 1h --key %s --yes", o.OrderID).want(t, 0, "queued: 1")
	op.types("console provision --plan").want(t, 0, "as declared")
	op.types("console provision").want(t, 0)

	short := kafka.Topic{Name: schemas.TopicOrders, Partitions: schemas.Topics()[0].Partitions, Retention: time.Hour}
	admin := kafka.Config{Brokers: strings.Split(f.cfg.Environ["KAFKA_BROKERS"], ","), SASLMechanism: "PLAIN", SASLUsername: "admin", SASLPassword: password}
	if err := kafka.Provision(t.Context(), admin, []kafka.Topic{short}); err != nil {
		t.Fatal(err)
	}
	op.types("console provision").want(t, 1, "AUTHORIZATION_FAILED", "next: console acls\n")
	f.operator("provision").types("console provision").want(t, 0, "retention", "as declared")
}

// And nothing of it is too much: without any one of them something is refused, and said to be.
// Once it is allowed, what has waited goes on.
func TestACLs_areAllNeeded(t *testing.T) {
	t.Parallel()
	f := newGuarded(t)
	f.start()
	f.stockUp()
	f.mails(f.stir().OrderID, 1)

	kinds := map[string][]acl{}
	for _, service := range []string{"order", "inventory", "email"} { // as an order goes: one lets the next have work
		for _, a := range f.acls {
			if a.principal == "User:"+service {
				kind := fmt.Sprint(a.operation, a.resource, strings.HasSuffix(a.name, ".dlt"))
				kinds[kind] = append(kinds[kind], a)
			}
		}
	}
	for _, some := range kinds {
		since := len(f.log.lines())
		f.forbid(some...)
		f.stir()
		for _, a := range some {
			eventually(t, a.String()+" is missed", func() bool { return f.refused(a, since) })
			f.allow(a)
		}
	}
	f.mails(f.stir().OrderID, 1)
	f.quiet()

	commands := map[string]string{"Read": "console tail %s --from beginning", "DescribeConfigs": "console provision --plan", "Describe": "console lag"}
	op := f.operator("console")
	for _, a := range f.acls {
		if a.principal == "User:console" {
			command := strings.ReplaceAll(commands[a.operation], "%s", a.name)
			f.forbid(a)
			op.types("%s", command).want(t, 1, "AUTHORIZATION_FAILED", "next: console acls\n")
			f.allow(a)
			op.types("%s", command).want(t, 0)
		}
	}
}

// refused reports whether a service's log tells, behind a line, that it is not allowed something.
func (f *guarded) refused(a acl, since int) bool {
	service := strings.TrimPrefix(a.principal, "User:")
	return slices.ContainsFunc(f.log.lines()[since:], func(line string) bool {
		return strings.Contains(line, "service="+service+" ") && strings.Contains(line, "AUTHORIZATION_FAILED") && strings.Contains(line, a.name)
	})
}

func TestACLs_areAllNeeded_toProvision(t *testing.T) {
	t.Parallel()
	f := newGuarded(t)
	op := f.alone("provision")
	op.cfg.Environ["SCHEMA_REGISTRY_URL"] = eventtest.NewContract(schemas.Topics(), schemas.Subjects()).Registry(t)
	for _, a := range f.acls {
		if a.principal != "User:provision" {
			continue
		}
		if a.operation == "Create" {
			_ = f.cluster.DeleteTopic(a.name) // there is none the first time
		}
		f.forbid(a)
		op.types("console provision").want(t, 1, "AUTHORIZATION_FAILED", "next: console acls\n")
		f.allow(a)
		op.types("console provision").want(t, 0)
	}
}
