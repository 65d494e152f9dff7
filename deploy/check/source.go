package check

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// source is what the rules know of the code.
type source struct {
	module    string            // the path of the main module
	variables map[string]string // what the programs read, with their defaults
}

// tag is that of a field which is read from a variable.
var tag = regexp.MustCompile(`env:"([A-Z_]+)(?:,[^"]*)?"(?: envDefault:"([^"]*)")?`)

// readSource reads the tags that pkg/service reads, too: no list of variables has to be kept here.
func readSource(root string) (source, error) {
	s := source{variables: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	first, _, _ := strings.Cut(string(text), "\n")
	s.module = strings.TrimPrefix(first, "module ")
	for _, folder := range []string{"pkg", "services"} {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.Name() == "all" { // make run is in no image
				return fs.SkipDir
			}
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range tag.FindAllStringSubmatch(string(text), -1) {
				s.variables[m[1]] = m[2]
			}
			return err
		}))
	}
	return s, err
}
