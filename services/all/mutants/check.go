package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mutation takes one thing out of the code.
type mutation struct {
	name     string
	promise  int    // of the README's list
	breaks   string // what does not hold any more
	edits    []edit
	tests    []string // folders of the packages whose tests run
	postgres bool     // it cannot be seen on SQLite
}

// edit replaces a text that is in its file exactly once.
type edit struct{ file, old, with string }

func (m mutation) String() string {
	var files []string
	for _, e := range m.edits {
		if !slices.Contains(files, e.file) {
			files = append(files, e.file)
		}
	}
	return fmt.Sprintf("promise %d, %s: %s", m.promise, strings.Join(files, ", "), m.breaks)
}

// apply returns the changed texts of the files below root, by their paths there.
func (m mutation) apply(root string) (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, e := range m.edits {
		text, ok := texts[e.file]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(root, filepath.FromSlash(e.file))); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(text, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("%s holds %d times, not once, the text that is to be replaced; mend the table:\n%s", e.file, n, e.old)
		}
		texts[e.file] = bytes.Replace(text, []byte(e.old), []byte(e.with), 1)
	}
	return texts, nil
}

// checker runs tests on mutated code.
type checker struct {
	root, work string
	timeout    time.Duration
	endToEnd   bool
	seeds      int
	failing    map[string]map[string]bool // without any mutation, by what was run
}

// outcome is what a run of tests says.
type outcome struct {
	failed []string // the tests by package and name, innermost only
	notes  []string
	took   time.Duration
}

// outcome runs the tests of some folders on mutated code. Tests that fail without the mutation
// are left out.
func (c *checker) outcome(ctx context.Context, m mutation, folders []string) (outcome, error) {
	known, err := c.baseline(ctx, m.postgres, folders)
	if err != nil {
		return outcome{}, err
	}
	overlay, err := c.overlay(m)
	if err != nil {
		return outcome{}, err
	}
	start := time.Now()
	r, err := c.test(ctx, m.postgres, folders, "-overlay="+overlay, "-count=1")
	if err != nil {
		return outcome{}, err
	}
	o := outcome{took: time.Since(start), notes: r.notes}
	for _, test := range r.innermost() {
		if known[test] {
			o.notes = append(o.notes, test+" fails without it too")
		} else {
			o.failed = append(o.failed, test)
		}
	}
	return o, nil
}

// simulate runs the simulation on mutated code and returns its figures, in a line.
func (c *checker) simulate(ctx context.Context, m mutation) (string, error) {
	overlay, err := c.overlay(m)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "./services/all/sim/cmd/sim", "-overlay", overlay, "-seeds", strconv.Itoa(c.seeds), "-rerun", "0", "-dir", filepath.Join(c.work, "sim"))
	cmd.Dir = c.root
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output() // its status says only whether a seed has failed
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " seeds in ") {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("the simulation has no figures: %w", err)
}

// baseline are the tests that fail on the code as it is.
func (c *checker) baseline(ctx context.Context, postgres bool, folders []string) (map[string]bool, error) {
	key := fmt.Sprint(postgres, folders)
	if c.failing[key] == nil {
		r, err := c.test(ctx, postgres, folders)
		if err != nil {
			return nil, err
		}
		c.failing[key] = r.failed
	}
	return c.failing[key], nil
}

// overlay writes the changed files and returns the file that tells the go command of them.
func (c *checker) overlay(m mutation) (string, error) {
	texts, err := m.apply(c.root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range texts {
		changed := filepath.Join(c.work, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, text, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(c.root, filepath.FromSlash(file))] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.work, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// test runs go test and reads what it says.
func (c *checker) test(ctx context.Context, postgres bool, folders []string, flags ...string) (*report, error) {
	args := append([]string{"test", "-json", "-vet=off", "-failfast=false", "-timeout=" + c.timeout.String()}, flags...)
	for _, folder := range folders {
		args = append(args, "./"+folder)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = c.root
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends the tests, too
	cmd.WaitDelay = 10 * time.Second
	for _, v := range os.Environ() {
		// On the embedded parts, as in "make test", but for what only PostgreSQL shows.
		if name, _, _ := strings.Cut(v, "="); name == "KAFKA_BROKERS" || name == "DATABASE_URL" && !postgres {
			continue
		}
		cmd.Env = append(cmd.Env, v)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r, broken := read(out)
	if broken != nil {
		return nil, broken
	}
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || r.events == 0) {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, stderr.String())
	}
	return r, nil
}

// report is what go test -json has told.
type report struct {
	events int
	failed map[string]bool
	notes  []string
}

// read reads the lines of go test -json. The error is that of the compiler.
func read(lines []byte) (*report, error) {
	r := &report{failed: map[string]bool{}}
	dead := map[string]bool{} // packages whose run has panicked: what follows is no test's verdict
	var build strings.Builder
	for line := range bytes.Lines(lines) {
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		r.events++
		switch {
		case e.Action == "build-output":
			build.WriteString(e.Output)
		case e.Action == "build-fail":
			return r, fmt.Errorf("it does not compile:\n%s", build.String())
		case e.Action == "output" && strings.HasPrefix(e.Output, "panic: test timed out"):
			r.notes, dead[e.Package] = append(r.notes, shortPackage(e.Package)+" hung until the timeout"), true
		case e.Action == "output" && e.Test == "" && strings.HasPrefix(e.Output, "panic: "):
			r.notes = append(r.notes, shortPackage(e.Package)+" died of a "+strings.TrimSpace(e.Output))
		case e.Action == "fail" && e.Test != "" && !dead[e.Package]:
			r.failed[shortPackage(e.Package)+" "+e.Test] = true
		}
	}
	return r, nil
}

// shortPackage is a package's path without the module.
func shortPackage(pkg string) string {
	for _, top := range []string{"pkg", "services", "schemas"} {
		if _, rest, ok := strings.Cut(pkg, "/"+top+"/"); ok {
			return path.Join(top, rest)
		}
	}
	return path.Base(pkg)
}

// innermost are the failed tests without those that failed by their subtests.
func (r *report) innermost() (tests []string) {
	for test := range r.failed {
		inner := false
		for other := range r.failed {
			inner = inner || strings.HasPrefix(other, test+"/")
		}
		if !inner {
			tests = append(tests, test)
		}
	}
	slices.Sort(tests)
	return tests
}
