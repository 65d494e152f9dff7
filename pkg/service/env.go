package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"
)

// Main is the main function of a service. It reads the variables into a C and calls run
// with a context that SIGINT or SIGTERM ends; a second signal ends the process at once. It
// exits with 0 after a clean stop, with 1 when run failed, and with 2 when variables are
// missing, malformed or make no sense (run's error is a [*ConfigError]), each with one line
// on standard error. It takes no arguments but --help, which lists the variables.
func Main[C any](name string, run func(ctx context.Context, cfg C) error) {
	if len(os.Args) > 1 {
		os.Exit(help[C](name, os.Args[1], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a signal has its usual effect
	CollectLess()
	time.AfterFunc(startEnds, giveBack)
	os.Exit(exitCode(ctx, name, os.Stderr, run))
}

// CollectLess makes the garbage collector of a small process work less often: of some 10 MB that
// live, Go collects dozens of times a second, a fifth of the processor time of a busy service.
// Where GOMEMLIMIT bounds the memory, four times as much garbage may stand as lives. Elsewhere it is
// some 24 MB more than usual, however much lives: a burst of 80 MB would take 400 otherwise.
// GOGC overrides both. [Main] calls it; call it once.
func CollectLess() {
	switch {
	case os.Getenv("GOGC") != "":
	case debug.SetMemoryLimit(-1) != math.MaxInt64: // GOMEMLIMIT
		debug.SetGCPercent(400)
	default:
		ballast = make([]byte, 24<<20)
	}
}

// ballast is on the collector's account of what lives. No page of it is ever touched, so that it
// takes no memory.
var ballast []byte

// startEnds is when a service has usually started, and is idle or does its first work.
const startEnds = 2 * time.Second

// giveBack gives what only the start needed back to the system. It collects twice, since what lies
// in a [sync.Pool] outlives one collection: a buffer of 4 MB for each set of migrations that were read
// at once would count as what lives, and let as much garbage stand.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

func exitCode[C any](ctx context.Context, name string, stderr io.Writer, run func(context.Context, C) error) int {
	cfg, err := Parse[C](env.ToMap(os.Environ()))
	if err == nil {
		err = run(ctx, cfg)
	}
	var config *ConfigError
	switch {
	case err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 0
	case errors.As(err, &config):
		fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(config.Error()))
		return 2
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(err.Error()))
	return 1
}

// ConfigError is the error of variables that are missing, malformed or make no sense. Trying
// again does not mend it.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *ConfigError) Unwrap() error { return e.Err }

// Parse fills a configuration from variables, by the `env` and `envDefault` tags of its
// fields, those of nested structs included. DATABASE_URL and every variable whose name ends
// in _PASSWORD may come from a file instead: <NAME>_FILE is its path, and a line break at
// its end is cut. The error names, in one line, all variables that are missing or malformed
// and what each should be (the field's `expect` tag, else its type). It never holds the
// value of a secret, and is a [*ConfigError].
func Parse[C any](environ map[string]string) (C, error) {
	var cfg C
	vars := variables(reflect.TypeFor[C](), "")
	environ, wrong := readFiles(environ, vars)
	err := env.ParseWithOptions(&cfg, env.Options{Environment: environ})
	var all env.AggregateError
	if err != nil && !errors.As(err, &all) {
		return cfg, &ConfigError{err}
	}
	missing := missing(all)
	for _, v := range vars {
		switch value := environ[v.name]; {
		case wrong[v.name] != "": // its file is the trouble
		case slices.Contains(missing, v.name):
			wrong[v.name] = v.name + " is missing" + v.hint()
		case value != "" && malformed[C](v.name, value):
			wrong[v.name] = v.name + v.quote(value) + " is malformed" + v.hint()
		}
	}
	switch {
	case len(wrong) == 0 && err == nil:
		return cfg, nil
	case len(wrong) == 0:
		return cfg, &ConfigError{err}
	}
	var parts []string
	for _, v := range vars { // in the order of declaration
		if text, ok := wrong[v.name]; ok {
			parts = append(parts, text)
			delete(wrong, v.name)
		}
	}
	return cfg, &ConfigError{fmt.Errorf("%s; all variables are listed in README.md", strings.Join(parts, "; "))}
}

// variable is one variable that a configuration reads.
type variable struct {
	name         string
	expect       string
	typ          reflect.Type
	defaultValue string
	required     bool
}

func variables(t reflect.Type, prefix string) []variable {
	var all []variable
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("env"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name != "":
			all = append(all, variable{prefix + name, f.Tag.Get("expect"), f.Type, f.Tag.Get("envDefault"), strings.Contains(options, "required")})
		case f.Type.Kind() == reflect.Struct:
			all = append(all, variables(f.Type, prefix+f.Tag.Get("envPrefix"))...)
		}
	}
	return all
}

func (v variable) secret() bool {
	return v.name == "DATABASE_URL" || strings.HasSuffix(v.name, "_PASSWORD")
}

// hint says what the variable should be.
func (v variable) hint() string {
	expect := v.expect
	switch {
	case expect != "":
	case v.typ == reflect.TypeFor[time.Duration]():
		expect = "a duration such as 500ms or 30s"
	case v.typ.Kind() == reflect.Bool:
		expect = "true or false"
	case v.typ.Kind() >= reflect.Int && v.typ.Kind() <= reflect.Uint64:
		expect = "a whole number"
	case v.typ.Kind() == reflect.Float64:
		expect = "a number"
	default:
		return ""
	}
	return " (expected: " + expect + ")"
}

func (v variable) quote(value string) string {
	if v.secret() {
		return ""
	}
	return fmt.Sprintf("=%.40q", value)
}

// readFiles returns a copy of environ with the secrets that come from files, and what is
// wrong with them by variable.
func readFiles(environ map[string]string, vars []variable) (with, wrong map[string]string) {
	with, wrong = map[string]string{}, map[string]string{}
	for k, value := range environ {
		with[k] = value
	}
	for _, v := range vars {
		file := environ[v.name+"_FILE"]
		if !v.secret() || file == "" {
			continue
		}
		if environ[v.name] != "" {
			wrong[v.name] = v.name + " and " + v.name + "_FILE are both set"
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			wrong[v.name] = v.name + "_FILE: " + err.Error()
			continue
		}
		with[v.name] = strings.TrimRight(string(text), "\r\n")
	}
	return with, wrong
}

func missing(all env.AggregateError) (names []string) {
	for _, err := range all.Errors {
		var unset env.VarIsNotSetError
		var empty env.EmptyVarError
		switch {
		case errors.As(err, &unset):
			names = append(names, unset.Key)
		case errors.As(err, &empty):
			names = append(names, empty.Key)
		}
	}
	return names
}

// malformed tries one variable alone, because the library's errors name the Go field.
func malformed[C any](name, value string) bool {
	var cfg C
	err := env.ParseWithOptions(&cfg, env.Options{Environment: map[string]string{name: value}})
	return errors.Is(err, env.ParseError{})
}
