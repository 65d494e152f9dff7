package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// prepare makes a shop's topics, and what sets its groups to where its own records begin. tidy
// removes what is left of it, once it has stopped.
//
// Ours has topics of fixed names, which stay: another shop may use the broker. So its groups
// begin at the topics' ends.
func (b *broker) prepare(ctx context.Context, kind shopKind, prefix string) (tidy func() error, err error) {
	var topics []kafka.Topic
	gone := []string{} // afterwards
	for _, t := range schemas.Topics() {
		topic, service, dead := schemas.DeadLetters(t.Name)
		switch {
		case kind.ours() && dead:
			gone = append(gone, inbox.DeadLetterTopic(topic, prefix+"-"+service)) // the shop makes it
		case kind.ours():
			topics = append(topics, kafka.Topic(t))
		case !dead:
			name := prefix + "-" + t.Name
			gone = append(gone, name)
			topics = append(topics, kafka.Topic{Name: name, Partitions: int32(kind.partitions), Retention: time.Hour})
		}
	}
	tidy = func() error { return b.remove(context.WithoutCancel(ctx), prefix, gone) }
	if err := kafka.Provision(ctx, kafka.Config{Brokers: []string{b.addr}}, topics); err != nil || !kind.ours() {
		return tidy, err
	}
	for name, service := range schemas.Services() {
		ends, err := b.admin.ListEndOffsets(ctx, service.Consumes...)
		if err == nil {
			err = ends.Error()
		}
		if err == nil && len(service.Consumes) > 0 {
			err = b.admin.CommitAllOffsets(ctx, prefix+"-"+name, ends.Offsets())
		}
		if err != nil {
			return tidy, err
		}
	}
	return tidy, nil
}

// remove deletes topics, and all groups with the prefix. What is not there is fine: the shop may
// never have opened.
func (b *broker) remove(ctx context.Context, prefix string, topics []string) error {
	groups, err := b.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(groups.Groups(), func(name string) bool { return len(name) <= len(prefix) || name[:len(prefix)+1] != prefix+"-" })
	var errs []error
	if len(names) > 0 {
		_, err := b.admin.DeleteGroups(ctx, names...)
		errs = append(errs, err)
	}
	_, err = b.admin.DeleteTopics(ctx, topics...)
	return errors.Join(append(errs, err)...)
}
