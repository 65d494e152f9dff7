package main

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// A member that is killed between its commit and its word has handled the record all the same.
func TestGroup_handled(t *testing.T) {
	t.Parallel()
	const killed = 7
	for name, c := range map[string]struct {
		committed []int // nil where there is no database
		alive     bool  // nobody was killed
		want      []sighting
		lost      bool
	}{
		"what was told is handled":                      {want: []sighting{{0, 1}, {1, 2}, {2, 3}}},
		"what a database has is, at the kill":           {committed: []int{0, 1, 2}, want: []sighting{{0, 1}, {1, 2}, {2, killed}}},
		"what neither was told nor is there is lost":    {committed: []int{0, 1}, want: []sighting{{0, 1}, {1, 2}}, lost: true},
		"nor does it count where nobody was killed":     {committed: []int{0, 1, 2}, alive: true, want: []sighting{{0, 1}, {1, 2}}, lost: true},
		"nor is anything made up where nothing is kept": {want: []sighting{{0, 1}, {1, 2}}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &group{last: map[int]int64{}, keys: 1, members: []*groupMember{{killed: killed}}}
				if c.alive {
					g.members[0].killed = 0
				}
				if c.committed != nil {
					g.committed = func(context.Context) ([]int, error) { return c.committed, nil }
				}
				for _, s := range c.want {
					if s.at != killed {
						g.see(&groupMember{}, s)
					}
				}
				if err := g.handled(t.Context(), 3); (err != nil) != c.lost {
					t.Errorf("handled: %v", err)
				}
				if diff := cmp.Diff(c.want, g.seen, cmp.AllowUnexported(sighting{})); diff != "" {
					t.Errorf("seen (-want +got):\n%s", diff)
				}
			})
		})
	}
}
