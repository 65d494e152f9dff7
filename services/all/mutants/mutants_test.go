package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTable keeps the table from going stale between two runs of "make mutants".
func TestTable(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range table() {
		if seen[m.name] {
			t.Errorf("%s is in the table twice", m.name)
		}
		seen[m.name] = true
		if m.promise < 1 || m.promise > 14 || m.breaks == "" || len(m.edits) == 0 {
			t.Errorf("%s does not say what it breaks", m.name)
		}
		for _, folder := range m.tests {
			if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(folder, "/..."))); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		texts, err := m.apply(root)
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		for file, text := range texts {
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
	}
}

func TestMutation_apply(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.go"), []byte("one two two"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("replaces each text in turn", func(t *testing.T) {
		t.Parallel()
		m := mutation{edits: []edit{{"a.go", "one", "three"}, {"a.go", "three two ", ""}}}
		got, err := m.apply(root)
		if diff := cmp.Diff(map[string][]byte{"a.go": []byte("two")}, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	for name, old := range map[string]string{"a text that is not there": "four", "a text that is there twice": "two"} {
		t.Run(name+" is an error", func(t *testing.T) {
			t.Parallel()
			if got, err := (mutation{edits: []edit{{"a.go", old, ""}}}).apply(root); err == nil || !strings.Contains(err.Error(), "a.go") {
				t.Errorf("apply = %q, %v", got, err)
			}
		})
	}
	t.Run("a file that is not there is an error", func(t *testing.T) {
		t.Parallel()
		if _, err := (mutation{edits: []edit{{"b.go", "one", ""}}}).apply(root); err == nil || !strings.Contains(err.Error(), fs.ErrNotExist.Error()) && !os.IsNotExist(err) {
			t.Errorf("apply = %v", err)
		}
	})
}

func TestRead(t *testing.T) {
	t.Parallel()
	lines := func(all ...string) []byte { return []byte(strings.Join(all, "\n") + "\n") }
	fail := func(test string) string {
		return `{"Action":"fail","Package":"m/pkg/a","Test":"` + test + `"}`
	}
	t.Run("names the innermost tests that failed", func(t *testing.T) {
		t.Parallel()
		r, err := read(lines(fail("TestA/one"), fail("TestA"), fail("TestAB"), `{"Action":"pass","Package":"m/pkg/a","Test":"TestC"}`, `{"Action":"fail","Package":"m/pkg/a"}`, "no JSON"))
		if diff := cmp.Diff([]string{"pkg/a TestA/one", "pkg/a TestAB"}, r.innermost()); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("code that does not compile is an error", func(t *testing.T) {
		t.Parallel()
		_, err := read(lines(`{"Action":"build-output","Output":"a.go:1: oops\n"}`, `{"Action":"build-fail"}`, `{"Action":"fail","Package":"m/pkg/a","FailedBuild":"m/pkg/a"}`))
		if err == nil || !strings.Contains(err.Error(), "a.go:1: oops") {
			t.Errorf("error %v, want the compiler's", err)
		}
	})
	t.Run("what fails by the timeout catches nothing, what failed before it does", func(t *testing.T) {
		t.Parallel()
		r, err := read(lines(fail("TestA"), `{"Action":"output","Package":"m/pkg/a","Test":"TestB","Output":"panic: test timed out after 3m0s\n"}`, fail("TestB")))
		if diff := cmp.Diff([]string{"pkg/a TestA"}, r.innermost()); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if diff := cmp.Diff([]string{"pkg/a hung until the timeout"}, r.notes); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRun takes one thing out of the code for good, and sees that the tests notice.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	missed, err := run(t.Context(), []string{"-run", "^compat-default$"}, &out)
	if err != nil || missed != 0 || !strings.Contains(out.String(), "pkg/codec/compat TestCheck_refuses/another_default") {
		t.Errorf("run = %d, %v:\n%s", missed, err, out.String())
	}
	t.Run("lists without running", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		missed, err := run(t.Context(), []string{"-list"}, &out)
		if n := len(slices.Collect(strings.Lines(out.String()))); err != nil || missed != 0 || n != len(table()) {
			t.Errorf("run -list = %d, %v, %d lines, want one per mutation", missed, err, n)
		}
	})
	t.Run("a name that matches nothing is an error", func(t *testing.T) {
		t.Parallel()
		if _, err := run(t.Context(), []string{"-run", "^nothing$"}, &bytes.Buffer{}); err == nil {
			t.Error("no error")
		}
	})
}
