package all_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/keyline/services/console"
)

// Of two shops in one folder the console finds the first; the second says how it is found,
// and leaves the file alone.
func TestTwoShopsInOneFolder(t *testing.T) {
	parallel(t)
	dir := t.TempDir()
	file := filepath.Join(dir, ".run", "urls.json")
	start := func() (*shop, *bytes.Buffer) {
		s, out := prepare(t, nil), &bytes.Buffer{}
		s.cfg.URLFile, s.cfg.Out = file, out
		s.start()
		return s, out
	}
	names := func(s *shop) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), s.URLs.HTTP)
	}
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"http": "http://127.0.0.1:1"}`), 0o600); err != nil { // of one that was killed
		t.Fatal(err)
	}
	first, banner := start()
	if !names(first) || strings.Contains(banner.String(), "export ADMIN_URLS") {
		t.Errorf("the first one says\n%s", banner)
	}
	second, banner := start()
	if !names(first) || !strings.Contains(banner.String(), "finds the shop at "+first.URLs.HTTP) {
		t.Errorf("the second one says\n%s", banner)
	}
	environ := map[string]string{}
	for _, pair := range strings.Fields(regexp.MustCompile(`export (ADMIN_URLS=.*)`).FindStringSubmatch(banner.String())[1]) {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	var out, errs bytes.Buffer
	shared := real["KAFKA_BROKERS"] != "" // then an address of the first is one of the second too
	if code := console.Run(t.Context(), console.Config{Environ: environ, Dir: dir}, []string{"outbox", "--verbose"}, &out, &errs); code != 0 || strings.Contains(errs.String(), file) && !shared {
		t.Errorf("the console with the variables of the second: %d\n%s%s", code, &out, &errs)
	}
	second.stop()
	if !names(first) {
		t.Error("the file of the first one has gone with the second")
	}
	first.stop()
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is still there, and no shop")
	}
	if third, _ := start(); !names(third) {
		t.Error("the file does not name the shop that runs")
	}
}
