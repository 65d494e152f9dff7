package codec

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/twmb/franz-go/pkg/sr"
)

// Subject is a subject of the registry with the schemas it has to have.
type Subject struct {
	Name string
	// Versions are schemas as JSON, oldest first.
	Versions []string
}

// Provision brings the registry up to date: each subject gets the compatibility level
// FULL_TRANSITIVE and all its versions, oldest first. It changes nothing that is there, so it
// may run again, and by several at once. The error names the subject; the registry refuses a
// version that is not compatible with those it has. It blocks for at most 5 s a request.
func Provision(ctx context.Context, cfg Config, subjects []Subject) error {
	r, err := newRegistry(cfg)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		if err := r.provision(ctx, s); err != nil {
			return fmt.Errorf("provision %s: %w", s.Name, err)
		}
	}
	return nil
}

func (r *registry) provision(ctx context.Context, s Subject) error {
	// Confluent's registry sets the level of a subject that does not exist yet; Apicurio's
	// answers 404, and takes it once there is a first version.
	err := r.restrict(ctx, s.Name)
	var answer *sr.ResponseError
	late := errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
	if err != nil && !late {
		return fmt.Errorf("set compatibility: %w", short(err))
	}
	for i, text := range s.Versions {
		if _, err := r.client.RegisterSchema(ctx, s.Name, sr.Schema{Schema: text}, -1, -1); err != nil {
			return fmt.Errorf("register version %d: %w", i+1, short(err))
		}
		if !late {
			continue
		}
		late = false
		if err := r.restrict(ctx, s.Name); err != nil {
			return fmt.Errorf("set compatibility: %w", short(err))
		}
	}
	return nil
}

// restrict sets the compatibility level. Registries differ in what they answer, so the answer
// is not read.
func (r *registry) restrict(ctx context.Context, subject string) error {
	level := sr.SetCompatibility{Level: sr.CompatFullTransitive}
	return r.client.Do(ctx, http.MethodPut, "/config/"+url.PathEscape(subject), level, nil)
}
