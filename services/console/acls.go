package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"example.com/keyline/schemas"
)

// Permission is what a principal needs to be allowed at brokers that allow nothing else. Read
// and Write imply Describe there, AlterConfigs implies DescribeConfigs.
type Permission struct {
	Principal  string   `json:"principal"`
	Resource   string   `json:"resource"` // topic or group
	Name       string   `json:"name"`
	Operations []string `json:"operations"` // as kafka-acls.sh has them
	Why        string   `json:"why"`
}

// Permissions follow from what is declared: those of each service, of what provisions, and of
// this console. NAME in principal is replaced by whose it is. Groups are those of the services
// that answer, otherwise named after the services: guessed are those.
func (c *Console) Permissions(ctx context.Context, principal string) (all []Permission, guessed []string) {
	groups := c.groups(ctx)
	add := func(name, resource, of, why string, operations ...string) {
		all = append(all, Permission{strings.ReplaceAll(principal, "NAME", name), resource, of, operations, why})
	}
	services := schemas.Services()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		for _, topic := range s.Publishes {
			add(name, "topic", topic, "publishes its events", "Write")
		}
		for _, topic := range s.DeadLetters {
			add(name, "topic", deadLetterTopic(topic, groups), "copies its dead letters", "Write")
		}
		for _, topic := range s.Consumes {
			add(name, "topic", topic, "consumes, replays", "Read")
		}
		if len(s.Consumes) > 0 {
			add(name, "group", cmp.Or(groups[name], name), "joins, commits", "Read")
			if groups[name] == "" {
				guessed = append(guessed, name)
			}
		}
	}
	for _, t := range schemas.Topics() {
		add("provision", "topic", deadLetterTopic(t.Name, groups), "makes, compares, corrects", "Create", "Describe", "AlterConfigs")
	}
	for _, t := range schemas.Topics() {
		add("console", "topic", deadLetterTopic(t.Name, groups), "tail, lag, provision --plan", "Read", "DescribeConfigs")
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if len(services[name].Consumes) > 0 {
			add("console", "group", cmp.Or(groups[name], name), "lag", "Describe")
		}
	}
	return all, guessed
}

// writeKafkaACLs writes commands for a shell, one for all that a principal may do alike: each
// starts a JVM.
func writeKafkaACLs(w io.Writer, all []Permission) {
	var commands []string
	resources := map[string]string{}
	for _, p := range all {
		command := "--allow-principal " + quoted(p.Principal)
		for _, o := range p.Operations {
			command += " --operation " + o
		}
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
		resources[command] += " --" + p.Resource + " " + quoted(p.Name)
	}
	fmt.Fprintln(w, "set -eu")
	for _, command := range commands {
		fmt.Fprintf(w, `kafka-acls.sh --bootstrap-server "$BOOTSTRAP" --command-config admin.properties --add %s%s`+"\n", command, resources[command])
	}
}
