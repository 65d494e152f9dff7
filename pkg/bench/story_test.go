package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

func ringOf(keys ...string) (ring []message) {
	for _, key := range keys {
		ring = append(ring, message{key: []byte(key), order: schemas.OrderPlaced{OrderID: key}})
	}
	return ring
}

func TestStory_next(t *testing.T) {
	t.Parallel()
	s := newStory(ringOf("a", "b", "a"), "topic")
	seen, ids := map[string]int64{}, map[string]bool{}
	for range 7 {
		r := s.next()
		if err := follow(seen, &r); err != nil {
			t.Error(err)
		}
		ids[string(r.Header(event.HeaderID))] = true
	}
	if len(ids) != 7 {
		t.Errorf("%d IDs of 7 events", len(ids))
	}
	if diff := cmp.Diff(map[string]int64{"a": 5, "b": 2}, seen); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(s.versions, seen); diff != "" {
		t.Errorf("what was read is not what was told (-told +read):\n%s", diff)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	m := ringOf("a")[0]
	for _, tt := range []struct {
		name     string
		versions []int64
		want     string
	}{
		{"in order", []int64{1, 2, 3}, ""},
		{"one is missing", []int64{1, 3}, "version 3 of key a follows version 1"},
		{"one comes twice", []int64{1, 2, 2}, "version 2 of key a follows version 2"},
		{"two are exchanged", []int64{2, 1}, "version 2 of key a follows version 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seen, got := map[string]int64{}, ""
			for _, v := range tt.versions {
				r := m.record("topic", 0, v)
				if err := follow(seen, &r); err != nil {
					got = err.Error()
					break
				}
			}
			if got != tt.want {
				t.Errorf("versions %v: %q, want %q", tt.versions, got, tt.want)
			}
		})
	}
}
