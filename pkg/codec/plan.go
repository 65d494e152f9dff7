package codec

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"
)

// Drift is a difference between a subject as it is declared and as the registry has it.
type Drift struct {
	Subject string
	What    string // compatibility, version <n>, versions
	Have    string
	Want    string
	// Stuck is why Provision cannot mend it; empty: it does.
	Stuck string
	// Harmless says that nothing has to be done: somebody has registered a version that is
	// not declared here, such as one of a newer deployment.
	Harmless bool
}

// Plan tells what Provision would change, and what the registry would refuse, and changes
// nothing. It blocks for at most 5 s a request.
func Plan(ctx context.Context, cfg Config, subjects []Subject) (drifts []Drift, err error) {
	r, err := newRegistry(cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range subjects {
		of, err := r.plan(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", s.Name, err)
		}
		drifts = append(drifts, of...)
	}
	return drifts, nil
}

func (r *registry) plan(ctx context.Context, s Subject) (drifts []Drift, err error) {
	have, err := r.client.SubjectVersions(ctx, s.Name)
	if err != nil && !notFound(err) {
		return nil, fmt.Errorf("list versions: %w", short(err))
	}
	level := r.client.Compatibility(ctx, s.Name)[0]
	switch {
	case level.Err != nil && !notFound(level.Err):
		return nil, fmt.Errorf("read compatibility: %w", short(level.Err))
	case level.Err != nil: // the registry's general level is in force, whatever that will be
		drifts = append(drifts, Drift{Subject: s.Name, What: "compatibility", Have: "not set", Want: sr.CompatFullTransitive.String()})
	case level.Level != sr.CompatFullTransitive:
		drifts = append(drifts, Drift{Subject: s.Name, What: "compatibility", Have: level.Level.String(), Want: sr.CompatFullTransitive.String()})
	}
	found := 0
	for i, text := range s.Versions {
		_, ok, err := r.lookup(ctx, s.Name, text)
		if err != nil {
			return nil, fmt.Errorf("look up version %d: %w", i+1, err)
		}
		if ok {
			found++
			continue
		}
		d := Drift{Subject: s.Name, What: "version " + strconv.Itoa(i+1), Have: "missing", Want: "registered"}
		if len(have) > 0 {
			d.Stuck = r.objection(ctx, s.Name, text)
		}
		drifts = append(drifts, d)
	}
	if len(have) > found {
		drifts = append(drifts, Drift{Subject: s.Name, What: "versions", Have: strconv.Itoa(len(have)), Want: strconv.Itoa(len(s.Versions)), Harmless: true})
	}
	return drifts, nil
}

// objection is what the registry has against a new version; empty if it has nothing, or does
// not say.
func (r *registry) objection(ctx context.Context, subject, text string) string {
	judged, err := r.client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, -2, sr.Schema{Schema: text})
	if err != nil || judged.Is {
		return ""
	}
	return strings.TrimSuffix("it is not compatible with the versions there: "+line(strings.Join(judged.Messages, "; ")), ": ")
}
