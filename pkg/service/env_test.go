package service_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
	"github.com/google/go-cmp/cmp"
)

type kafkaConfig struct {
	Brokers  []string `env:"KAFKA_BROKERS,required" expect:"host:port, separated by commas"`
	Password string   `env:"KAFKA_SASL_PASSWORD"`
	Hook     func()   `env:"-"`
}

type config struct {
	Kafka     kafkaConfig
	Service   service.Config
	Telemetry telemetry.Config
	URL       string        `env:"DATABASE_URL,required,notEmpty"`
	Deadline  time.Duration `env:"ORDER_DEADLINE" envDefault:"30s"`
	Attempts  int           `env:"RETRY_ATTEMPTS" envDefault:"10"`
	Again     time.Duration `env:"ORDER_DEADLINE" envDefault:"30s"`
}

func TestParse(t *testing.T) {
	t.Parallel()
	t.Run("variables and defaults fill nested configurations", func(t *testing.T) {
		t.Parallel()
		got, err := service.Parse[config](map[string]string{
			"KAFKA_BROKERS": "a:1,b:2", "DATABASE_URL": "sqlite:x", "LOG_LEVEL": "debug", "LOG_FORMAT": "json", "RETRY_ATTEMPTS": "",
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a:1", "b:2"}, got.Kafka.Brokers); diff != "" {
			t.Errorf("brokers (-want +got):\n%s", diff)
		}
		s := got.Service
		if s.HTTPAddr != ":8080" || s.AdminAddr != "127.0.0.1:8081" || s.ShutdownTimeout != 25*time.Second || !s.TrustTraceparent {
			t.Errorf("defaults of the service: got %+v", s)
		}
		if got.Telemetry.LogLevel != slog.LevelDebug || got.Telemetry.LogFormat != telemetry.JSON {
			t.Errorf("log: got %v %v", got.Telemetry.LogLevel, got.Telemetry.LogFormat)
		}
		if got.Deadline != 30*time.Second || got.Attempts != 10 {
			t.Errorf("got deadline %v, attempts %d", got.Deadline, got.Attempts)
		}
	})
	t.Run("one line names everything that is missing or malformed", func(t *testing.T) {
		t.Parallel()
		_, err := service.Parse[config](map[string]string{
			"DATABASE_URL": "", "SHUTDOWN_TIMEOUT": "25", "RETRY_ATTEMPTS": "ten", "TRUST_TRACEPARENT": "maybe",
			"LOG_LEVEL": "loud", "LOG_FORMAT": "xml", "ORDER_DEADLINE": strings.Repeat("9", 1000),
		})
		want := `KAFKA_BROKERS is missing (expected: host:port, separated by commas); ` +
			`SHUTDOWN_TIMEOUT="25" is malformed (expected: a duration such as 500ms or 30s); ` +
			`TRUST_TRACEPARENT="maybe" is malformed (expected: true or false); ` +
			`LOG_LEVEL="loud" is malformed (expected: debug, info, warn or error); ` +
			`LOG_FORMAT="xml" is malformed (expected: text or json); ` +
			`DATABASE_URL is missing; ` +
			`ORDER_DEADLINE="` + strings.Repeat("9", 40) + `" is malformed (expected: a duration such as 500ms or 30s); ` +
			`RETRY_ATTEMPTS="ten" is malformed (expected: a whole number); ` +
			`all variables are listed in README.md`
		if err == nil || err.Error() != want {
			t.Errorf("error:\n got %v\nwant %s", err, want)
		}
	})
	t.Run("a secret may come from a file, its line break is cut", func(t *testing.T) {
		t.Parallel()
		got, err := service.Parse[config](map[string]string{
			"KAFKA_BROKERS":            "a:1",
			"KAFKA_SASL_PASSWORD_FILE": file(t, " s3cret \r\n"),
			"DATABASE_URL_FILE":        file(t, "postgres://u:p@h/d\n"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.Kafka.Password != " s3cret " || got.URL != "postgres://u:p@h/d" {
			t.Errorf("got password %q, URL %q", got.Kafka.Password, got.URL)
		}
	})
	t.Run("trouble with a secret's file names the variable, never the secret", func(t *testing.T) {
		t.Parallel()
		_, err := service.Parse[config](map[string]string{
			"KAFKA_BROKERS":            "a:1",
			"KAFKA_SASL_PASSWORD":      "s3cret",
			"KAFKA_SASL_PASSWORD_FILE": file(t, "s3cret"),
			"DATABASE_URL_FILE":        "/nowhere/url",
		})
		want := `KAFKA_SASL_PASSWORD and KAFKA_SASL_PASSWORD_FILE are both set; ` +
			`DATABASE_URL_FILE: open /nowhere/url: no such file or directory; all variables are listed in README.md`
		if err == nil || err.Error() != want {
			t.Errorf("error:\n got %v\nwant %s", err, want)
		}
	})
	t.Run("a malformed secret is not shown", func(t *testing.T) {
		t.Parallel()
		_, err := service.Parse[struct {
			Pin int `env:"PIN_PASSWORD"`
		}](map[string]string{"PIN_PASSWORD": "s3cret"})
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "PIN_PASSWORD is malformed") {
			t.Errorf("error: got %v", err)
		}
	})
	t.Run("an empty environment is not the process's own", func(t *testing.T) {
		t.Parallel()
		got, err := service.Parse[struct {
			Path string `env:"PATH"`
		}](nil)
		if err != nil || got.Path != "" {
			t.Errorf("got %q, %v; want nothing", got.Path, err)
		}
	})
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMain lets the test binary be a service: its signals and exit status are a process's.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_SERVICE") {
	case "":
		os.Exit(m.Run())
	case "stops":
		service.Main("demo", func(ctx context.Context, _ struct{}) error {
			fmt.Println("running")
			<-ctx.Done()
			return ctx.Err()
		})
	case "hangs":
		service.Main("demo", func(ctx context.Context, _ struct{}) error {
			fmt.Println("running")
			<-ctx.Done()
			fmt.Println("stopping")
			select {}
		})
	case "fails":
		service.Main("demo", func(context.Context, struct{}) error {
			return errors.Join(errors.New("one"), errors.New("two"))
		})
	case "nonsense":
		service.Main("demo", func(context.Context, struct{}) error {
			return errors.Join(fmt.Errorf("start: %w", &service.ConfigError{Err: errors.New("PORT must be above 0")}), errors.New("and more"))
		})
	case "misses":
		service.Main("demo", func(context.Context, config) error { return nil })
	}
}

// process runs the test binary as a service and returns what it prints.
func process(t *testing.T, mode string, args ...string) (cmd *exec.Cmd, stdout *bufio.Scanner, stderr *strings.Builder) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{"TEST_SERVICE=" + mode, "GOCOVERDIR=" + t.TempDir()}
	stderr = new(strings.Builder)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out), stderr
}

func await(t *testing.T, out *bufio.Scanner, want string) {
	t.Helper()
	if !out.Scan() || out.Text() != want {
		t.Fatalf("output: got %q, %v; want %q", out.Text(), out.Err(), want)
	}
}

func TestMain_process(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(fmt.Sprintf("%v stops it with status 0", sig), func(t *testing.T) {
			t.Parallel()
			cmd, out, stderr := process(t, "stops")
			await(t, out, "running")
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || stderr.String() != "" {
				t.Errorf("got %v, %q on standard error; want neither", err, stderr)
			}
		})
	}
	t.Run("a second signal ends it at once", func(t *testing.T) {
		t.Parallel()
		cmd, out, _ := process(t, "hangs")
		await(t, out, "running")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		await(t, out, "stopping")
		// The handler is taken away right after the first signal; until then one more may
		// be swallowed, so the signal is repeated until the process is gone.
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for {
			_ = cmd.Process.Signal(syscall.SIGTERM) // fails once the process is gone
			select {
			case err := <-done:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
					t.Errorf("got %v, want the end by SIGTERM", err)
				}
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	for _, tt := range []struct {
		name, mode, stderr string
		status             int
		args               []string
	}{
		{"a failed run is one line and status 1", "fails", "demo: one; two\n", 1, nil},
		{"a variable that makes no sense is one line and status 2", "nonsense", "demo: PORT must be above 0\n", 2, nil},
		{"missing variables are one line and status 2", "misses",
			"demo: KAFKA_BROKERS is missing (expected: host:port, separated by commas); DATABASE_URL is missing; all variables are listed in README.md\n", 2, nil},
		{"an argument is one line and status 2, and nothing runs", "hangs", "demo: unknown argument \"serve\"; it takes none, its settings are variables; next: demo --help\n", 2, []string{"serve"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd, _, stderr := process(t, tt.mode, tt.args...)
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.status {
				t.Errorf("got %v, want status %d", err, tt.status)
			}
			if got := stderr.String(); got != tt.stderr {
				t.Errorf("standard error: got %q, want %q", got, tt.stderr)
			}
		})
	}
}
