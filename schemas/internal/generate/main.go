// Command generate writes what follows from the .avsc files of the folder schemas: the Go
// structs of every event's newest version with the code that encodes and decodes them, into
// events.gen.go, and the checksum of every new version, into versions.sum. It refuses a version that was edited or removed after its
// checksum was written. With -check it writes nothing and fails if anything is stale.
package main

import (
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"example.com/keyline/pkg/codec/compat"
)

func main() {
	dir := flag.String("dir", ".", "the folder schemas")
	check := flag.Bool("check", false, "only check that generated files are current")
	flag.Parse()
	if err := run(*dir, *check); err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	versions, err := read(dir)
	if err != nil {
		return err
	}
	if err := wellMade(versions); err != nil {
		return err
	}
	sums, err := freeze(filepath.Join(dir, "versions.sum"), versions)
	if err != nil {
		return err
	}
	source, err := generate(versions)
	if err != nil {
		return err
	}
	if err := compatible(versions); err != nil {
		return err
	}
	return write(check, map[string]string{
		filepath.Join(dir, "versions.sum"):  sums,
		filepath.Join(dir, "events.gen.go"): source,
	})
}

// generate returns the content of events.gen.go.
func generate(versions []version) (string, error) {
	declared, err := structs(newest(versions))
	if err != nil {
		return "", err
	}
	methods, err := code(declared, versions)
	if err != nil {
		return "", err
	}
	source, err := format.Source([]byte(declared + methods))
	return string(source), err
}

// compatible refuses a version that cannot be read as every other version of its event, and
// the other way round, before anything is written.
func compatible(versions []version) error {
	var texts []string
	for i, v := range versions {
		texts = append(texts, v.text)
		if i+1 < len(versions) && versions[i+1].event == v.event {
			continue
		}
		if err := compat.Check(v.event, texts); err != nil {
			return err
		}
		texts = nil
	}
	return nil
}

// version is one .avsc file.
type version struct {
	file   string // "order/order_placed.v2.avsc"
	event  string // "order/order_placed"
	number int
	text   string
}

var fileName = regexp.MustCompile(`^[a-z]+/[a-z][a-z0-9_]*\.v([1-9][0-9]*)\.avsc$`)

// read returns all versions, those of one event together, oldest first.
func read(dir string) ([]version, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.avsc"))
	if err != nil {
		return nil, err
	}
	var versions []version
	for _, path := range paths {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		v := version{file: filepath.ToSlash(rel)}
		match := fileName.FindStringSubmatch(v.file)
		if match == nil {
			return nil, fmt.Errorf("%s: a schema's file is named <service>/<event>.v<number>.avsc, such as order/order_placed.v2.avsc", v.file)
		}
		if v.number, err = strconv.Atoi(match[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", v.file, err)
		}
		v.event = strings.TrimSuffix(v.file, ".v"+match[1]+".avsc")
		if v.text, err = text(path); err != nil {
			return nil, err
		}
		versions = append(versions, v)
	}
	slices.SortFunc(versions, func(a, b version) int {
		if a.event != b.event {
			return strings.Compare(a.event, b.event)
		}
		return a.number - b.number
	})
	return versions, consecutive(versions)
}

func consecutive(versions []version) error {
	want, event := 1, ""
	for _, v := range versions {
		if v.event != event {
			want, event = 1, v.event
		}
		if v.number != want {
			return fmt.Errorf("%s: version %d of this event is missing: versions count from 1 without gaps", v.file, want)
		}
		want++
	}
	return nil
}

// newest returns the last version of every event.
func newest(versions []version) []version {
	var last []version
	for i, v := range versions {
		if i+1 == len(versions) || versions[i+1].event != v.event {
			last = append(last, v)
		}
	}
	return last
}

// text reads a file with the line ends of git's own storage, whatever the checkout has.
func text(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.ReplaceAll(string(b), "\r\n", "\n"), err
}

// write brings the files up to date, or only compares them.
func write(check bool, files map[string]string) error {
	for path, want := range files {
		got, err := text(path)
		if err == nil && got == want {
			continue
		}
		if check {
			return fmt.Errorf("%s is stale: run `make generate` and commit the result", filepath.Base(path))
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			return err
		}
		fmt.Println("schemas: wrote", filepath.Base(path))
	}
	return nil
}
