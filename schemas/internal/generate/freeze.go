package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// freeze returns the content of versions.sum, which sha256sum -c reads too: the lines that
// the file at path has, and one for each version that is new. A version whose checksum is
// already there must still have it, for somebody may have written records with it.
func freeze(path string, versions []version) (string, error) {
	old, err := text(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	frozen := make(map[string]string)
	for line := range strings.Lines(old) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			return "", fmt.Errorf("versions.sum: malformed line %q", strings.TrimSpace(line))
		}
		frozen[file] = sum
	}
	var lines []string
	for _, v := range versions {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(v.text)))
		if was, ok := frozen[v.file]; ok && was != sum {
			return "", fmt.Errorf("%s was edited, but its checksum stands in versions.sum: a published version never changes; restore it and put the change into %s.v%d.avsc; if it has not landed yet, take its line out of versions.sum instead",
				v.file, v.event, last(versions, v.event)+1)
		}
		delete(frozen, v.file)
		lines = append(lines, sum+"  "+v.file+"\n")
	}
	for file := range frozen {
		return "", fmt.Errorf("%s is gone, but its checksum stands in versions.sum: records written with it must stay readable; restore it", file)
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return strings.Join(lines, ""), nil
}

// last is the number of an event's newest version.
func last(versions []version, event string) int {
	n := 0
	for _, v := range versions {
		if v.event == event {
			n = max(n, v.number)
		}
	}
	return n
}
