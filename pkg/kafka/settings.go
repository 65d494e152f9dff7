package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// setting is one of a topic's configuration on which promises rest. What else is set is the
// operator's own.
type setting struct {
	key  string // the brokers' name of it
	what string // as a Drift names it
	want string
	ok   func(have string) bool
}

// The least that a topic's own limits may be, in bytes: what Kafka takes by default, and what
// a partition is kept to where only its size bounds it.
const (
	leastMaxMessage     = 1048588
	leastRetentionBytes = 256 << 20
)

// settings are those of a topic. Compaction would remove events that somebody has yet to read,
// since all of an aggregate's have one key; so would a small limit in bytes.
func (t Topic) settings() []setting {
	atLeast := func(n int64) func(string) bool {
		return func(have string) bool { is, err := strconv.ParseInt(have, 10, 64); return err == nil && is >= n }
	}
	all := []setting{
		{"cleanup.policy", "cleanup.policy", "delete", func(have string) bool { return have == "delete" }},
		{"retention.bytes", "retention.bytes", "-1", func(have string) bool { return have == "-1" || atLeast(leastRetentionBytes)(have) }},
		{"max.message.bytes", "max.message.bytes", strconv.Itoa(leastMaxMessage), atLeast(leastMaxMessage)},
	}
	if t.Retention > 0 {
		want := strconv.FormatInt(t.Retention.Milliseconds(), 10)
		all = append(all, setting{"retention.ms", "retention", want, func(have string) bool { return have == want }})
	}
	return all
}

// wrong are the settings of a topic that are not as they should be, with the value that each
// has. One that the brokers do not tell counts as right.
func (t Topic) wrong(configs kadm.ResourceConfigs) (all []setting, have []string, err error) {
	of, err := configs.On(t.Name, nil)
	if err == nil {
		err = of.Err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("describe topic %s: %w", t.Name, err)
	}
	told := map[string]string{}
	for _, c := range of.Configs {
		told[c.Key] = c.MaybeValue()
	}
	for _, s := range t.settings() {
		if is, ok := told[s.key]; ok && !s.ok(is) {
			all, have = append(all, s), append(have, is)
		}
	}
	return all, have, nil
}

// correct sets what is not as it should be.
func correct(ctx context.Context, admin *kadm.Client, topics []Topic) error {
	if len(topics) == 0 {
		return nil
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names(topics)...)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	for _, t := range topics {
		wrong, _, err := t.wrong(configs)
		if err != nil {
			return err
		}
		var set []kadm.AlterConfig
		for _, s := range wrong {
			set = append(set, kadm.AlterConfig{Op: kadm.SetConfig, Name: s.key, Value: kadm.StringPtr(s.want)})
		}
		if set == nil {
			continue
		}
		answers, err := admin.AlterTopicConfigs(ctx, set, t.Name)
		if err == nil {
			_, err = answers.On(t.Name, func(r *kadm.AlterConfigsResponse) error { return r.Err })
		}
		if err != nil {
			return fmt.Errorf("configure topic %s: %w", t.Name, err)
		}
	}
	return nil
}

// drifts are a topic's settings that Provision would change.
func (t Topic) drifts(configs kadm.ResourceConfigs) (all []Drift, err error) {
	wrong, have, err := t.wrong(configs)
	for i, s := range wrong {
		all = append(all, Drift{Topic: t.Name, What: s.what, Have: readable(s, have[i]), Want: readable(s, s.want)})
	}
	return all, err
}

// readable is a value as people write it.
func readable(s setting, value string) string {
	ms, err := strconv.ParseInt(value, 10, 64)
	switch {
	case s.key != "retention.ms" || err != nil:
		return value
	case ms < 0:
		return "for ever"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}
