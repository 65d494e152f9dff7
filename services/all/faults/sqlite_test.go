//go:build unix

package faults_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", for the test's own connections

	"example.com/keyline/services/all/check"
)

// file is the database file of a service.
func (r *rig) file(service string) string {
	return strings.TrimPrefix(r.databaseURL(service), "sqlite:")
}

// lockSQLite keeps a service from writing to its database until unlock is called.
func (r *rig) lockSQLite(service string) (unlock func()) {
	d, err := sql.Open("sqlite", "file:"+r.file(service)+"?_pragma=busy_timeout(60000)&_txlock=immediate")
	if err == nil {
		var tx *sql.Tx
		if tx, err = d.BeginTx(context.Background(), nil); err == nil {
			return func() { _ = tx.Rollback(); _ = d.Close() } // nothing was written
		}
		d.Close()
	}
	r.Errorf("lock the database of %s: %v", service, err)
	return func() {}
}

// TestF28_SQLite: kill -9 in the middle of the log, a second program that writes, and copies
// of the files that were torn.
func TestF28_SQLite(t *testing.T) {
	r := newRig(t, simple...)
	r.startAll(r.patientGroup())
	l := r.load(30)
	rounds := size(4, 60)
	torn := 0
	var busy sync.WaitGroup
	r.every(700*time.Millisecond, rounds, func(i int) {
		p := r.processes[r.rand.IntN(3)]
		unlock := r.lockSQLite(p.service)
		busy.Go(func() {
			lasting(300 * time.Millisecond)
			unlock()
		})
		if i%2 == 0 {
			lasting(time.Duration(r.rand.Int64N(int64(500 * time.Millisecond))))
			p.kill()
			torn += r.tear(p.service, 5)
			p.start()
		}
	})
	busy.Wait()
	l.stop()
	r.judge(check.Expect{MailRepeats: rounds * mailsAtOnce})
	for _, s := range services {
		r.wantIntact(s, r.file(s))
	}
	if torn == 0 {
		t.Error("no copy was torn: the log was always empty")
	}
	r.note(rounds, "%d torn copies of the files, all intact", torn)
}

// tear makes n copies of a dead service's database, each with its log torn at some byte, and
// wants them intact. It returns how many there were.
func (r *rig) tear(service string, n int) (torn int) {
	r.Helper()
	data, err := os.ReadFile(r.file(service))
	if err != nil {
		r.Fatal(err)
	}
	log, err := os.ReadFile(r.file(service) + "-wal")
	if err != nil || len(log) == 0 {
		return 0 // it has just been written back
	}
	for range n {
		dir, err := os.MkdirTemp(r.dir, "torn")
		if err != nil {
			r.Fatal(err)
		}
		copied := filepath.Join(dir, "copy.db")
		for path, bytes := range map[string][]byte{copied: data, copied + "-wal": log[:r.rand.IntN(len(log))]} {
			if err := os.WriteFile(path, bytes, 0o600); err != nil {
				r.Fatal(err)
			}
		}
		r.wantIntact(service, copied)
		os.RemoveAll(dir)
		torn++
	}
	return torn
}

// wantIntact wants SQLite's own check of a file to find nothing.
func (r *rig) wantIntact(service, path string) {
	r.Helper()
	d, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		r.Fatal(err)
	}
	defer d.Close()
	var found string
	if err := d.QueryRow("pragma integrity_check").Scan(&found); err != nil || found != "ok" {
		r.Errorf("the database of %s is damaged: %q %v", service, found, err)
	}
}
