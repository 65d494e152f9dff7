package db_test

import (
	"math/rand/v2"
	"testing"

	"example.com/keyline/pkg/db/dbtest"
)

func TestSizes_grow_with_what_is_kept(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t)
	measure := func() (all int64) {
		t.Helper()
		sizes, err := d.Sizes(t.Context())
		if err != nil || len(sizes) == 0 {
			t.Fatalf("Sizes = %v, %v; want some", sizes, err)
		}
		for _, s := range sizes {
			if s.Table == "kept" || s.Table == "" {
				all += s.Bytes
			}
		}
		return all
	}
	if _, err := d.Exec(t.Context(), `create table kept (v text)`); err != nil {
		t.Fatal(err)
	}
	before := measure()
	text := make([]byte, 2000)
	for n := range 100 {
		for i := range text {
			text[i] = byte('a' + rand.IntN(26)) // what repeats would be compressed
		}
		if _, err := d.Exec(t.Context(), `insert into kept values ($1)`, string(text)); err != nil {
			t.Fatalf("row %d: %v", n, err)
		}
	}
	if after := measure(); after < before+100_000 {
		t.Errorf("from %d to %d bytes, want at least 100,000 more", before, after)
	}
}
