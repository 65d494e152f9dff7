package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topic declares a topic.
type Topic struct {
	Name string
	// Partitions is fixed for the life of the topic: a change would move keys to other
	// partitions, and their order would be lost.
	Partitions int32
	// Retention is how long records are kept; 0 leaves it to the brokers.
	Retention time.Duration
}

// Provision creates the topics that are missing, and corrects settings of the others: their
// retention if one is declared, compaction and limits in bytes that would lose or refuse events.
// It changes nothing else. When it returns, the brokers know the topics. It may run
// again, and beside another. If the partition count of any topic differs, it changes nothing,
// and its error names topic, have and want. A topic that cannot be created keeps no other from
// being created.
func Provision(ctx context.Context, cfg Config, topics []Topic) error {
	// Listing topics answers from a cache of that age, in which a new topic is missing.
	opts, err := cfg.withDefaults().clientOpts(kgo.MetadataMinAge(10 * time.Millisecond))
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("provision: %w", err)
	}
	defer cl.Close()
	if err := provision(ctx, kadm.NewClient(cl), topics); err != nil {
		return fmt.Errorf("provision: %w", err)
	}
	return nil
}

func provision(ctx context.Context, admin *kadm.Client, topics []Topic) error {
	missing, err := compare(ctx, admin, topics)
	if err != nil {
		return err
	}
	var failed []error
	missing = slices.DeleteFunc(missing, func(t Topic) bool {
		err := create(ctx, admin, t)
		// Another run may have come first; whether with the same count, the next look says.
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			return false
		}
		failed = append(failed, fmt.Errorf("create topic %s: %w", t.Name, err))
		return true
	})
	for len(missing) > 0 { // a created topic reaches the brokers a little later
		if missing, err = compare(ctx, admin, missing); err != nil {
			return err
		}
		if len(missing) > 0 {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if failed != nil {
		return errors.Join(failed...)
	}
	return correct(ctx, admin, topics)
}

// compare returns the topics that do not exist, and an error if one exists otherwise.
func compare(ctx context.Context, admin *kadm.Client, topics []Topic) (missing []Topic, err error) {
	if len(topics) == 0 {
		return nil, nil
	}
	have, err := admin.ListTopics(ctx, names(topics)...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var errs []error
	for _, t := range topics {
		d, err := t.compare(have)
		switch {
		case err != nil:
			errs = append(errs, err)
		case d == nil:
		case d.missing():
			missing = append(missing, t)
		default:
			errs = append(errs, fmt.Errorf("topic %s has %s partitions, declared are %s: %s", d.Topic, d.Have, d.Want, d.Stuck))
		}
	}
	return missing, errors.Join(errs...)
}

// create leaves the replication factor to the brokers. Those that have no valid default get
// as many replicas as there are brokers, at most three.
func create(ctx context.Context, admin *kadm.Client, t Topic) error {
	configs := map[string]*string{}
	if t.Retention > 0 {
		configs["retention.ms"] = kadm.StringPtr(strconv.FormatInt(t.Retention.Milliseconds(), 10))
	}
	_, err := admin.CreateTopic(ctx, t.Partitions, -1, configs, t.Name)
	if !errors.Is(err, kerr.InvalidReplicationFactor) {
		return err
	}
	brokers, err := admin.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("list brokers: %w", err)
	}
	_, err = admin.CreateTopic(ctx, t.Partitions, int16(min(len(brokers), 3)), configs, t.Name)
	return err
}

func names(topics []Topic) []string {
	all := make([]string, len(topics))
	for i, t := range topics {
		all[i] = t.Name
	}
	return all
}
