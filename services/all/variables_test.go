package all_test

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"example.com/keyline/services/all"
)

// What cannot be used ends the shop at its start, with an error that names the variable.
func TestRun_names_the_variable_that_is_wrong(t *testing.T) {
	parallel(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	none := filepath.Join(t.TempDir(), "none")
	for want, cfg := range map[string]all.Config{
		"DATABASE_URL_FILE: open " + none: {Environ: map[string]string{"DATABASE_URL_FILE": none}},
		"KAFKA_PORT: ":                    {KafkaPort: port},
		"SMTP_PORT: ":                     {SMTPPort: port},
	} {
		t.Run(want[:strings.Index(want, ":")], func(t *testing.T) {
			parallel(t)
			cfg.Out, cfg.Log = io.Discard, t.Output()
			if err := all.Run(t.Context(), cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error %v, want %s…", err, want)
			}
		})
	}
}
