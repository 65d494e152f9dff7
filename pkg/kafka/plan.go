package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Drift is a difference between a topic as it is declared and as the brokers have it.
type Drift struct {
	Topic string
	What  string // topic, partitions, retention, or the brokers' name of a setting
	Have  string
	Want  string
	// Stuck is why Provision cannot mend it; empty: it does.
	Stuck string
}

// Plan tells what Provision would change, and what it would refuse, and changes nothing.
func Plan(ctx context.Context, cfg Config, topics []Topic) ([]Drift, error) {
	r, err := NewReader(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	drifts, err := plan(ctx, r.admin, topics)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return drifts, nil
}

func plan(ctx context.Context, admin *kadm.Client, topics []Topic) (drifts []Drift, err error) {
	if len(topics) == 0 {
		return nil, nil
	}
	have, err := admin.ListTopics(ctx, names(topics)...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names(topics)...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	for _, t := range topics {
		d, err := t.compare(have)
		if err != nil {
			return nil, err
		}
		if d != nil {
			drifts = append(drifts, *d)
		}
		if d.missing() {
			continue
		}
		settings, err := t.drifts(configs)
		if err != nil {
			return nil, err
		}
		drifts = append(drifts, settings...)
	}
	return drifts, nil
}

// compare is how a topic itself differs, its settings apart; nil if it does not.
func (t Topic) compare(have kadm.TopicDetails) (*Drift, error) {
	switch d := have[t.Name]; {
	case kerr.IsRetriable(d.Err): // unknown, or so new that it has no leader
		return &Drift{Topic: t.Name, What: "topic", Have: "missing", Want: t.describe()}, nil
	case d.Err != nil:
		return nil, fmt.Errorf("topic %s: %w", t.Name, d.Err)
	case len(d.Partitions) != int(t.Partitions):
		n := strconv.Itoa(len(d.Partitions))
		return &Drift{
			Topic: t.Name, What: "partitions", Have: n, Want: strconv.Itoa(int(t.Partitions)),
			Stuck: "the count of a live topic never changes, because its keys would move: declare " + n + ", or move to a topic of another name",
		}, nil
	}
	return nil, nil
}

func (d *Drift) missing() bool { return d != nil && d.What == "topic" }

func (t Topic) describe() string {
	text := strconv.Itoa(int(t.Partitions)) + " partitions"
	if t.Retention > 0 {
		text += ", kept for " + t.Retention.String()
	}
	return text
}
