package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// prepare makes a shop's topics, and what sets its groups to where its own records begin. tidy
// removes what is left of it, once it has stopped.
//
// Ours has topics of fixed names, which stay: they may be somebody's. So its groups begin at the
// topics' ends, and no other shop may be open meanwhile: each would answer the other's orders.
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
	if err := b.alone(ctx, prefix); err != nil {
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

// alone is an error if another shop is open on the broker.
func (b *broker) alone(ctx context.Context, prefix string) error {
	groups, err := b.admin.DescribeGroups(ctx) // all there are
	if err != nil {
		return err
	}
	for _, g := range groups.Sorted() {
		if slices.Contains(g.JoinTopics(), schemas.TopicOrders) && !strings.HasPrefix(g.Group, prefix+"-") {
			return fmt.Errorf("another shop is open on the broker, with the group %s: its services answer our orders, and ours its", g.Group)
		}
	}
	return nil
}
