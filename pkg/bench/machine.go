package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// machine is what a figure has to be read with.
type machine struct {
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	System     string            `json:"system"`
	Go         string            `json:"go"`
	Fsync      string            `json:"fsync"` // median of 4 KiB
	Commit     string            `json:"commit"`
	Versions   map[string]string `json:"versions"`
}

func readMachine(ctx context.Context) (machine, error) {
	took, err := fsync()
	return machine{
		Processor: processor(), Processors: runtime.GOMAXPROCS(0), System: runtime.GOOS + "/" + runtime.GOARCH,
		Go: runtime.Version(), Fsync: took.Round(time.Microsecond).String(), Commit: commit(ctx), Versions: versions(),
	}, err
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // elsewhere it stays unknown
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// load is the machine's load average over one minute; empty where nobody says.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// fsync is how long it takes to put 4 KiB on the disk where the broker's log is.
func fsync() (time.Duration, error) {
	f, err := os.CreateTemp("", "keyline-fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []float64
	for range 51 {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(began)))
	}
	return time.Duration(median(took)), nil
}

// commit is that of the folder; "+" if there are changes beside it.
func commit(ctx context.Context) string {
	hash, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	c := strings.TrimSpace(string(hash))
	if changes, _ := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ":/", ":!results").Output(); len(changes) > 0 {
		c += "+"
	}
	return c
}

// measured are the libraries whose version matters to a figure.
var measured = []string{
	"github.com/IBM/sarama", "github.com/ThreeDotsLabs/watermill-kafka/v3", "github.com/ThreeDotsLabs/watermill-sql/v4", "github.com/jackc/pgx/v5", "github.com/hamba/avro/v2",
	"github.com/linkedin/goavro/v2", "github.com/twmb/avro", "github.com/twmb/franz-go",
	"github.com/twmb/franz-go/pkg/kfake", "github.com/twmb/franz-go/plugin/kotel", "go.opentelemetry.io/otel/sdk",
}

func versions() map[string]string {
	v := map[string]string{}
	info, _ := debug.ReadBuildInfo()
	for _, d := range info.Deps {
		if slices.Contains(measured, d.Path) {
			v[d.Path] = d.Version
		}
	}
	return v
}
