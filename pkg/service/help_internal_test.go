package service

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	type inner struct {
		Attempts int    `env:"ATTEMPTS" envDefault:"10"`
		Secret   string `env:"SECRET,required"`
		Hook     func() `env:"-"`
	}
	type config struct {
		Inner    inner
		Attempts int     `env:"ATTEMPTS" envDefault:"100"`
		Load     float64 `env:"LOAD" envDefault:"1" expect:"orders per second"`
		Data     string  `env:"DATA"`
	}
	const list = `demo runs until SIGINT or SIGTERM. Its settings are environment variables; README.md says what each does:

  ATTEMPTS=100 (expected: a whole number)
  SECRET, required
  LOAD=1 (expected: orders per second)
  DATA
`
	for _, tt := range []struct {
		arg, stdout, stderr string
		status              int
	}{
		{"-h", list, "", 0},
		{"--help", list, "", 0},
		{"help", list, "", 0},
		{"--port=1", "", "demo: unknown argument \"--port=1\"; it takes none, its settings are variables; next: demo --help\n", 2},
	} {
		var stdout, stderr strings.Builder
		status := help[config]("demo", tt.arg, &stdout, &stderr)
		if diff := cmp.Diff(tt.stdout, stdout.String()); status != tt.status || diff != "" || stderr.String() != tt.stderr {
			t.Errorf("%s: status %d, standard error %q, standard output (-want +got):\n%s", tt.arg, status, &stderr, diff)
		}
	}
}
