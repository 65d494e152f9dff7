package embedded

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// folder is a directory that one process at a time holds, and that remembers what is kept in
// it: kfake's own files have no lock, and two processes on them destroy each other's log.
type folder struct {
	path string
	id   string // made with the folder, the same for ever
	lock *os.File
}

type identity struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// openFolder creates or reopens the folder of one kind of store. It refuses a folder that
// another process holds, and one of another kind.
func openFolder(path, kind string) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of the embedded %s: %w", kind, err)
	}
	lock, err := lockPath(filepath.Join(path, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock folder %s (stop the process that uses it, or choose another folder): %w", path, err)
	}
	id, err := identify(path, kind)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &folder{path: path, id: id, lock: lock}, nil
}

func (f *folder) close() error { return f.lock.Close() }

// identify reads the folder's identity, or gives it one.
func identify(path, kind string) (string, error) {
	file := filepath.Join(path, "keyline.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id := identity{Kind: kind, ID: rand.Text()}
		return id.ID, writeJSON(file, id)
	}
	if err != nil {
		return "", fmt.Errorf("read identity of folder %s: %w", path, err)
	}
	var id identity
	if err := json.Unmarshal(text, &id); err != nil || id.ID == "" {
		return "", fmt.Errorf("%s is damaged: remove the folder to start afresh", file)
	}
	if id.Kind != kind {
		return "", fmt.Errorf("folder %s belongs to an embedded %s, not to a %s", path, id.Kind, kind)
	}
	return id.ID, nil
}

// writeJSON replaces the file as a whole: after a crash it holds the old text or the new one.
func writeJSON(path string, v any) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	encoder := json.NewEncoder(f)
	encoder.SetIndent("", "  ")
	if err := errors.Join(encoder.Encode(v), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
