package embedded_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/keyline/pkg/embedded"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"
)

func TestRegistry_kept(t *testing.T) {
	t.Parallel()
	t.Run("schemas, IDs and versions survive a restart", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		first := openRegistry(t, dir)
		cl := serve(t, first)
		id1, id2 := mustRegister(t, cl, subject, v1), mustRegister(t, cl, subject, v2)
		mustRegister(t, cl, "copies", v1Reordered)
		if err := first.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}

		cl, _ = startRegistry(t, dir)
		for want, schema := range map[int]string{id1: v1, id2: v2} {
			if got := mustRegister(t, cl, subject, schema); got != want {
				t.Errorf("ID after the restart is %d, want %d", got, want)
			}
		}
		if got, _ := cl.SubjectVersions(t.Context(), subject); !cmp.Equal(got, []int{1, 2}) {
			t.Errorf("versions are %v, want [1 2]", got)
		}
		_, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: v2NoDefault}, -1, -1)
		wantRefusal(t, err, http.StatusConflict, 409, "note")
	})
	t.Run("a schema that cannot be saved is not registered", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		cl, _ := startRegistry(t, dir)
		if err := os.Mkdir(filepath.Join(dir, "registry.json.new"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: v1}, -1, -1)
		wantRefusal(t, err, http.StatusInternalServerError, 50001, "registry.json")
		if got, _ := cl.Subjects(t.Context()); len(got) != 0 {
			t.Errorf("subjects are %v, want none", got)
		}
	})
	t.Run("an ID that is not the schema's is damage", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		r := openRegistry(t, dir)
		mustRegister(t, serve(t, r), subject, v1)
		r.Close()
		file := filepath.Join(dir, "registry.json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, strings.Replace(string(text), "order_id", "other_id", 1))
		_, err = embedded.NewRegistry(dir)
		wantError(t, err, "registry.json is damaged", subject)
	})
	t.Run("a folder in use, and a broker's, are refused", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		openRegistry(t, dir)
		_, err := embedded.NewRegistry(dir)
		wantError(t, err, "stop the process that uses it")

		broker := t.TempDir()
		mustClose(t, startKafka(t, embedded.KafkaConfig{Dir: broker}))
		_, err = embedded.NewRegistry(broker)
		wantError(t, err, "belongs to an embedded kafka")
	})
}
