package pkg_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// root is the folder of the repository and the path of its module.
func root(t *testing.T) (dir, module string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}\n{{.Path}}").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	dir, module, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return dir, module
}

// skipped are the folders that git ignores, and git's own.
var skipped = []string{".git", ".run", "data", "bin"}

const maxLines = 350

func TestFiles(t *testing.T) {
	t.Parallel()
	dir, module := root(t)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files++
		for _, complaint := range complaints(filepath.ToSlash(name), string(text), module) {
			t.Errorf("%s%s", filepath.ToSlash(name), complaint)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("only %d files were looked at", files)
	}
}

// complaints lists what is wrong with a file: ": what" or ":line: what".
func complaints(name, text, module string) (all []string) {
	if !strings.HasSuffix(name, ".go") {
		if path.Base(name) != "go.mod" && strings.Contains(text, module) {
			all = append(all, ": holds the module's path: renaming a clone must change nothing but Go code")
		}
		return all
	}
	generated := strings.HasSuffix(name, ".gen.go")
	if n := strings.Count(text, "\n"); n > maxLines && !generated && !strings.HasSuffix(name, "_test.go") {
		all = append(all, fmt.Sprintf(": has %d lines, more than %d: cut it where a reader would", n, maxLines))
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return append(all, ": "+err.Error())
	}
	complain := func(at token.Pos, format string, args ...any) {
		all = append(all, fmt.Sprintf(":%d: %s", set.Position(at).Line, fmt.Sprintf(format, args...)))
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" && isIdent(s.X, "time") {
			complain(s.Pos(), "time.Sleep: wait for the condition itself, or for a context")
		}
		return true
	})
	for _, group := range file.Comments {
		for _, word := range []string{"TO" + "DO", "FIX" + "ME"} {
			if strings.Contains(group.Text(), word) {
				complain(group.Pos(), "%s: do it or file it", word)
			}
		}
	}
	library := strings.HasPrefix(name, "pkg/") || strings.HasPrefix(name, "schemas/")
	if library && !generated && !strings.HasSuffix(name, "_test.go") && file.Name.Name != "main" {
		for _, id := range undocumented(file) {
			complain(id.Pos(), "%s has no comment: say what holds afterwards", id.Name)
		}
	}
	return all
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// inherited are methods whose meaning their interface has told already.
var inherited = []string{"Error", "Unwrap", "Schema", "Topic", "Key"}

// undocumented lists the exported names of a file that have no comment.
func undocumented(file *ast.File) (names []*ast.Ident) {
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && !(d.Recv != nil && (!exportedReceiver(d) || slices.Contains(inherited, d.Name.Name))) {
				names = append(names, d.Name)
			}
		case *ast.GenDecl:
			if d.Doc != nil {
				continue
			}
			for _, spec := range d.Specs {
				names = append(names, undocumentedSpec(spec)...)
			}
		}
	}
	return names
}

func undocumentedSpec(spec ast.Spec) (names []*ast.Ident) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Doc == nil && s.Name.IsExported() {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		for _, id := range s.Names {
			if s.Doc == nil && s.Comment == nil && id.IsExported() {
				names = append(names, id)
			}
		}
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.IsExported() {
			exported = true
		}
		return true
	})
	return exported
}

// The checks have teeth.
func TestFiles_madeUp(t *testing.T) {
	t.Parallel()
	const module = "example.org/shop"
	for _, tt := range []struct {
		name, file, text string
		want             []string
	}{
		{"a file in order", "pkg/a/a.go", "package a\n\n// A is.\nfunc A() {}\n\nfunc b() {}\n", nil},
		{"the module's path outside Go", "deploy/x.yaml", "image: " + module, []string{": holds the module's path: renaming a clone must change nothing but Go code"}},
		{"the module's path in go.mod", "go.mod", "module " + module, nil},
		{"a sleep", "services/a/a_test.go", "package a\n\nfunc f() { time.Sleep(1) }\n", []string{":3: time.Sleep: wait for the condition itself, or for a context"}},
		{"a promise to oneself", "pkg/a/a.go", "package a\n\n// TO" + "DO: later\n", []string{":3: TO" + "DO: do it or file it"}},
		{"a long file", "pkg/a/a.go", "package a\n" + strings.Repeat("\n", 350), []string{": has 351 lines, more than 350: cut it where a reader would"}},
		{"undocumented names", "schemas/a.go", "package a\n\ntype T struct{}\n\nfunc (T) M() {}\n\nfunc (T) Key() {}\n\nfunc (t) M() {}\n\nconst C, d = 1, 2\n",
			[]string{":3: T has no comment: say what holds afterwards", ":5: M has no comment: say what holds afterwards", ":11: C has no comment: say what holds afterwards"}},
		{"undocumented names of a service", "services/a/a.go", "package a\n\ntype T struct{}\n", nil},
		{"one comment over a group", "pkg/a/a.go", "package a\n\n// The kinds.\nconst (\n\tA = 1\n\tB = 2\n)\n\nvar V = 1 // V is.\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, complaints(tt.file, tt.text, module)); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}
