package codec_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"example.com/keyline/pkg/codec"
)

// drifts are those of a plan.
func drifts(t *testing.T, url string, subjects ...codec.Subject) []codec.Drift {
	t.Helper()
	got, err := codec.Plan(t.Context(), codec.Config{URL: url}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPlan(t *testing.T) {
	t.Parallel()
	both := codec.Subject{Name: "orders-test.Placed", Versions: []string{placedV1, placedV2}}

	t.Run("names what is missing, and changes nothing", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		want := []codec.Drift{
			{Subject: both.Name, What: "compatibility", Have: "BACKWARD", Want: "FULL_TRANSITIVE"}, // the general level
			{Subject: both.Name, What: "version 1", Have: "missing", Want: "registered"},
			{Subject: both.Name, What: "version 2", Have: "missing", Want: "registered"},
		}
		for range 2 {
			if diff := cmp.Diff(want, drifts(t, r.URL(), both)); diff != "" {
				t.Errorf("drifts (-want +got):\n%s", diff)
			}
		}
		if err := codec.Provision(t.Context(), codec.Config{URL: r.URL()}, []codec.Subject{both}); err != nil {
			t.Fatal(err)
		}
		if got := drifts(t, r.URL(), both); len(got) > 0 {
			t.Errorf("drifts after provisioning: %+v", got)
		}
	})

	t.Run("names another level, and a version that is not declared as harmless", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		if err := codec.Provision(t.Context(), codec.Config{URL: r.URL()}, []codec.Subject{both}); err != nil {
			t.Fatal(err)
		}
		put(t, r.URL()+"/config/"+both.Name, `{"compatibility": "NONE"}`)
		one := codec.Subject{Name: both.Name, Versions: both.Versions[:1]}
		want := []codec.Drift{
			{Subject: both.Name, What: "compatibility", Have: "NONE", Want: "FULL_TRANSITIVE"},
			{Subject: both.Name, What: "versions", Have: "2", Want: "1", Harmless: true},
		}
		if diff := cmp.Diff(want, drifts(t, r.URL(), one)); diff != "" {
			t.Errorf("drifts (-want +got):\n%s", diff)
		}
	})

	t.Run("a registry that tells no level of a subject has not set it", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasPrefix(req.URL.Path, "/config/") {
				return false
			}
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(map[string]any{"error_code": 40408, "message": "no such level"})
			return true
		})
		want := []codec.Drift{{Subject: "s", What: "compatibility", Have: "not set", Want: "FULL_TRANSITIVE"}}
		if diff := cmp.Diff(want, drifts(t, r.URL(), codec.Subject{Name: "s"})); diff != "" {
			t.Errorf("drifts (-want +got):\n%s", diff)
		}
	})

	t.Run("tells what the registry has against a version", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		if err := codec.Provision(t.Context(), codec.Config{URL: r.URL()}, []codec.Subject{{Name: both.Name, Versions: both.Versions[:1]}}); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		asked := ""
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasPrefix(req.URL.Path, "/compatibility/") {
				return false
			}
			once.Do(func() { asked = req.URL.Path })
			_ = json.NewEncoder(w).Encode(map[string]any{"is_compatible": false, "messages": []string{"field\n  note " + strings.Repeat("x", 1000)}})
			return true
		})
		got := drifts(t, r.URL(), both)
		if len(got) != 1 || got[0].What != "version 2" || !strings.HasPrefix(got[0].Stuck, "it is not compatible with the versions there: field note xxx") || len(got[0].Stuck) > 400 {
			t.Errorf("got %+v, want version 2 stuck, on one short line", got)
		}
		if want := "/compatibility/subjects/" + both.Name + "/versions"; asked != want {
			t.Errorf("asked %s, want %s", asked, want)
		}
	})

	t.Run("says that no registry answers", func(t *testing.T) {
		t.Parallel()
		if _, err := codec.Plan(t.Context(), codec.Config{URL: deadURL()}, []codec.Subject{both}); err == nil {
			t.Error("no error without a registry")
		}
	})
}

func put(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", url, resp.Status)
	}
}
