package console

import (
	"context"
	"flag"
	"strings"
)

var aclsCommand = &command{
	name: "acls", short: "what each service, the console and provision must be allowed at the brokers, and nothing else",
	long: `
For brokers that allow only what they are told (StandardAuthorizer with allow.everyone.if.no.acl.found=false): what each
principal needs, as it follows from the topics that are declared and the events that the services publish and handle. Read
and Write imply Describe. The idempotent producers need no IdempotentWrite, since Kafka 3.0. Nothing is asked of the
brokers, and nothing is changed: --format kafka-acls prints the commands that allow it, which may run again; they take away
nothing that was allowed before. They read the brokers' address from $BOOTSTRAP, and how to log in as an administrator
from admin.properties. The groups, after which the topics of dead letters are named, too, are those of the services
that answer, and otherwise have the services' names.`,
	examples: []string{
		"console acls", "console acls --format kafka-acls | BOOTSTRAP=kafka:9092 sh",
		"console acls --principal 'User:CN=NAME,O=Shop'",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		format := set.String("format", "table", "how to `print`: table, or kafka-acls, which a shell runs")
		principal := set.String("principal", "User:NAME", "the `principals`, with NAME where their names differ, as with certificates")
		return func(ctx context.Context, s *session, words []string) error {
			switch {
			case len(words) > 0:
				return wrong("acls takes flags only")
			case *format != "table" && *format != "kafka-acls":
				return wrong("--format is table or kafka-acls")
			case s.json && s.isSet("format"):
				return wrong("either --format or --json")
			case !strings.Contains(*principal, "NAME"):
				return wrong("--principal must have NAME in it, such as User:NAME: else all have the same permissions")
			}
			all, guessed := s.Permissions(ctx, *principal)
			if len(guessed) > 0 {
				s.warn("no answer from %s: their groups are taken to have these names", strings.Join(guessed, ", "))
			}
			switch {
			case s.json:
				return s.answer(map[string]any{"items": all}, nil)
			case *format == "kafka-acls":
				writeKafkaACLs(s.out, all)
			default:
				s.printPermissions(all)
			}
			return nil
		}
	},
}

func (s *session) printPermissions(all []Permission) {
	t := newTable(s.out, "PRINCIPAL", "RESOURCE", "NAME", "OPERATIONS", "WHY")
	for _, p := range all {
		t.row(safe(p.Principal, 200), p.Resource, safe(p.Name, 200), strings.Join(p.Operations, ", "), p.Why)
	}
	t.end()
	s.propose("\nthe commands that allow it", "%s", s.again(nil, "format", "kafka-acls"))
}
