package console

import (
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
)

// walk is how an event is found, read and mended.
var walk = []string{
	"console waiting ls\tfind it: what waits, by service and cause, with an ID each",
	"console waiting show email/17\tread it: the event, its error, its trace, what is queued behind it",
	"console redrive email/17 --yes\tits cause is mended: run it again, in its place",
	"console drop email/17 --why '...' --yes\tit can never work: say why, and remove it for good; its key goes on",
}

const exitCodes = `exit code: 0 done, 1 failed or refused, 2 used wrongly, 3 nothing was found, 4 what is there is not what is declared`

func (s *session) overview() {
	fmt.Fprint(s.out, `console shows what waits, lags and flows in the running system, and mends it.

An event that cannot be handled waits, and holds its key. To find, read and mend it:

`)
	t := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	for _, line := range walk {
		fmt.Fprintf(t, "  %s\n", s.called(line))
	}
	_ = t.Flush()
	fmt.Fprint(s.out, "\ncommands:\n")
	s.list(commands())
	fmt.Fprint(s.out, `
Each takes --json ("help json" tells what it prints), and tells all about itself with --help. What would change
something shows first what it would do, and does it with --yes; but provision shows it with --plan, and wants --yes only
for what may remove records.

It finds the system that runs under "make run" by itself, from here and from any folder below. For another, set
ADMIN_URLS=order=http://host:port,inventory=…,email=… (the operator routes; a name again for another replica),
KAFKA_BROKERS and SCHEMA_REGISTRY_URL; one that is not set is taken from what runs here.

`+exitCodes+"\n")
}

func (s *session) group(word string) {
	fmt.Fprintf(s.out, "%s %s: commands\n", s.name, word)
	var some []*command
	for _, c := range commands() {
		if strings.HasPrefix(c.name, word+" ") {
			some = append(some, c)
		}
	}
	s.list(some)
}

func (s *session) list(some []*command) {
	t := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	for _, c := range some {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.short)
	}
	_ = t.Flush()
}

func (s *session) help() {
	c, w := s.command, s.out
	fmt.Fprintf(w, "%s\n\nusage: %s %s [flags]\n\n%s\n\nexamples:\n", c.short, s.name, strings.TrimSpace(c.name+" "+c.args), strings.TrimSpace(c.long))
	for _, e := range c.examples {
		fmt.Fprintf(w, "  %s\n", s.called(e))
	}
	fmt.Fprint(w, "\nflags:\n")
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	s.flags.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		if kind != "" {
			kind = " " + strings.ToUpper(kind)
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (" + f.DefValue + " unless told otherwise)"
		}
		fmt.Fprintf(t, "  --%s%s\t%s\n", f.Name, kind, usage)
	})
	_ = t.Flush()
	fmt.Fprintf(w, "\n%s\n", exitCodes)
}
