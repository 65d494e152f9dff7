//go:build synctests

package sim_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"example.com/keyline/pkg/embedded"
)

// registry is the schema registry, which can be away.
type registry struct {
	*embedded.Registry

	mu   sync.Mutex
	away time.Time // until then it does not answer
	slow bool      // but hangs
}

func (r *registry) set(away time.Time, slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.slow = away, slow
}

// registryTransport carries the requests of one process.
type registryTransport struct{ p *process }

var errAway = errors.New("the registry is away")

// RoundTrip is part of [http.RoundTripper].
func (t registryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	w, r := t.p.w, t.p.w.registry
	if req.Body != nil {
		defer req.Body.Close()
	}
	if err := w.pause(req.Context(), w.dice.netDelay()); err != nil {
		return nil, err
	}
	r.mu.Lock()
	away, slow := r.away, r.slow
	r.mu.Unlock()
	if left := time.Until(away); left > 0 {
		w.log.count("registry away")
		if slow {
			if err := w.pause(req.Context(), left); err != nil {
				return nil, err
			}
		}
		return nil, errAway
	}
	if t.p.isDead() {
		return nil, errGone
	}
	in := httptest.NewRequest(req.Method, req.URL.RequestURI(), req.Body)
	in.Header = req.Header
	out := httptest.NewRecorder()
	r.ServeHTTP(out, in)
	res := out.Result()
	res.Request = req
	return res, nil
}
