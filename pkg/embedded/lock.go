package embedded

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Lock creates a folder if need be and keeps other processes from it until the lock is
// closed or this process has ended, however it ends.
func Lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder %s: %w", dir, err)
	}
	f, err := lockPath(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock folder %s (stop the process that uses it, or choose another folder): %w", dir, err)
	}
	return f, nil
}
