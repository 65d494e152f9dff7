package console

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

const (
	pingTimeout = 5 * time.Second
	lagPatience = 5 * time.Second // for the records whose age is looked at
)

// Lag is how far a group is behind in a partition.
type Lag struct {
	Service   string   `json:"service,omitempty"` // whose group it is, if that is known
	Group     string   `json:"group"`
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Committed int64    `json:"committed"` // -1: nothing
	LogStart  int64    `json:"log_start"`
	LogEnd    int64    `json:"log_end"`
	Records   int64    `json:"records"`           // to be read yet
	Seconds   *float64 `json:"seconds"`           // age of the first of them, 0 if there is none; nil if it is not known
	Lost      int64    `json:"lost,omitempty"`    // removed before they were read
	Stopped   string   `json:"stopped,omitempty"` // why it is not read, as its owner says
	Error     string   `json:"error,omitempty"`   // why the age is not known
}

// Lags tells how far groups are behind; a service's name stands for its group. Without names
// it tells of the services' groups; where services do not answer, of all groups that read our
// topics. An error beside lags says what is missing from them.
func (c *Console) Lags(ctx context.Context, names ...string) ([]Lag, error) {
	reader, err := c.kafka(ctx)
	if err != nil {
		return nil, err
	}
	partitions, warning := c.Partitions(ctx)
	if c.place.from["ADMIN_URLS"] == "" {
		warning = nil // only the brokers are known, which is enough
	}
	groups, service := map[string][]string{}, map[string]string{} // topics, service by group
	for _, p := range partitions {
		service[p.Group] = p.Service
		if !slices.Contains(groups[p.Group], p.Topic) {
			groups[p.Group] = append(groups[p.Group], p.Topic)
		}
	}
	if len(groups) == 0 || warning != nil {
		if err := addGroups(ctx, reader, groups); err != nil {
			return nil, err
		}
	}
	if len(names) > 0 {
		groups = pick(groups, service, names)
	}
	all, errs, said := []Lag{}, []error{warning}, map[string]bool{}
	for group, topics := range groups {
		lags, err := reader.Lag(ctx, group, lagPatience, topics...)
		if err != nil && !errors.Is(err, kafka.ErrNoTopic) {
			errs = append(errs, brokersFailed("", err, ""))
		}
		for _, topic := range topics {
			there := slices.ContainsFunc(lags, func(l kafka.Lag) bool { return l.Topic == topic })
			if errors.Is(err, kafka.ErrNoTopic) && !there && !said[topic] {
				said[topic] = true
				errs = append(errs, missing(topic))
			}
		}
		for _, l := range lags {
			all = append(all, lagOf(l, service[group], partitions))
		}
	}
	slices.SortFunc(all, func(a, b Lag) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all, errors.Join(errs...)
}

// addGroups adds those that have read our topics.
func addGroups(ctx context.Context, reader *kafka.Reader, groups map[string][]string) error {
	var ours []string
	for _, t := range schemas.Topics() {
		ours = append(ours, t.Name)
	}
	found, err := reader.Groups(ctx, ours...)
	if err != nil {
		return brokersFailed("", err, "")
	}
	for _, group := range found {
		if _, known := groups[group]; !known {
			groups[group] = nil
		}
	}
	return nil
}

// pick takes groups by their names, or by those of their services.
func pick(groups map[string][]string, service map[string]string, names []string) map[string][]string {
	picked := map[string][]string{}
	for _, name := range names {
		group := name
		for g, s := range service {
			if _, known := groups[name]; s == name && !known {
				group = g
			}
		}
		picked[group] = groups[group]
	}
	return picked
}

func lagOf(l kafka.Lag, service string, partitions []Partition) Lag {
	lag := Lag{
		Service: service, Group: l.Group, Topic: l.Topic, Partition: l.Partition, Committed: l.Committed, LogStart: l.Start, LogEnd: l.End,
		Records: l.Records(), Lost: l.Lost(),
	}
	if l.Err != nil {
		lag.Error = l.Err.Error()
	} else {
		seconds := l.Age(time.Now()).Seconds()
		lag.Seconds = &seconds
	}
	for _, p := range partitions {
		if p.Group == l.Group && p.Topic == l.Topic && p.Partition == l.Partition && p.Stopped != "" {
			lag.Stopped = p.Stopped
		}
	}
	return lag
}

// groups are the consumer groups of the services that answer, by service.
func (c *Console) groups(ctx context.Context) map[string]string {
	services, err := c.Services(ctx)
	if err != nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	type named struct{ service, group string }
	answers, _ := gather(bounded, services, func(ctx context.Context, s *Service) ([]named, error) {
		var list struct{ Group string }
		err := s.get(ctx, "/admin/partitions", nil, &list)
		return []named{{s.Name, list.Group}}, err
	})
	groups := map[string]string{}
	for _, a := range answers {
		if a.group != "" {
			groups[a.service] = a.group
		}
	}
	return groups
}
