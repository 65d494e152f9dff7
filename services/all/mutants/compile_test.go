package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
)

// TestTable_compiles looks for mutations that do not compile, by their types: no test would notice those.
func TestTable_compiles(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	p, err := loadPackages(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table() {
		texts, err := m.apply(root)
		if err != nil {
			continue // TestTable says so
		}
		if err := p.check(texts); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	t.Run("what does not compile is an error", func(t *testing.T) {
		file := "pkg/db/linger.go"
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.check(map[string][]byte{file: append(text, "\nfunc f() { unused := 0 }\n"...)}); err == nil {
			t.Error("no error")
		}
	})
}

// packages are those of the module, with what the compiler says of all that they import.
type packages struct {
	root    string
	files   *token.FileSet
	imports types.Importer
	listed  map[string]listed // by their folders below root
}

type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func loadPackages(root string) (*packages, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "./pkg/...", "./services/...")
	list.Dir, list.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	p := &packages{root: root, files: token.NewFileSet(), listed: map[string]listed{}}
	exports := map[string]string{}
	for in := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := in.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[l.ImportPath] = l.Export
		if folder, err := filepath.Rel(root, l.Dir); err == nil {
			p.listed[filepath.ToSlash(folder)] = l
		}
	}
	p.imports = importer.ForCompiler(p.files, "gc", func(name string) (io.ReadCloser, error) { return os.Open(exports[name]) })
	return p, nil
}

// check returns why the packages of changed files do not compile.
func (p *packages) check(texts map[string][]byte) error {
	var errs []error
	for folder := range folders(texts) {
		l := p.listed[folder]
		var parsed []*ast.File
		for _, name := range l.GoFiles {
			var text any // nil reads the file
			if changed, ok := texts[path.Join(folder, name)]; ok {
				text = changed
			}
			file, err := parser.ParseFile(p.files, filepath.Join(l.Dir, name), text, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			parsed = append(parsed, file)
		}
		_, err := (&types.Config{Importer: p.imports}).Check(l.ImportPath, p.files, parsed, nil)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func folders(texts map[string][]byte) map[string]bool {
	all := map[string]bool{}
	for file := range texts {
		if path.Ext(file) == ".go" {
			all[path.Dir(file)] = true
		}
	}
	return all
}
