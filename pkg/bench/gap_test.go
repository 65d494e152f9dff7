package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpsets(t *testing.T) {
	t.Parallel()
	sent := []int64{1000, 1001, 1010, 1011, 1020, 1021, 1030, 1031} // of two keys, in turn
	for _, tt := range []struct {
		name string
		seen []sighting
		want []upset
		lost int
	}{
		{
			"what is sent late is not the group's gap",
			[]sighting{{0, 1002}, {1, 1003}, {2, 1012}, {3, 1013}, {4, 1022}, {5, 1023}, {6, 1032}, {7, 1033}},
			[]upset{{}, {}}, 0,
		},
		{
			"the phase in which a gap ends has it; catching up is none",
			[]sighting{{0, 1002}, {1, 1003}, {2, 1062}, {3, 1013}, {4, 1062}, {5, 1123}, {6, 1062}, {7, 1123}},
			[]upset{{gap: 50}, {gap: 100}}, 0,
		},
		{
			"again is not first, and what never comes is lost",
			[]sighting{{2, 1112}, {0, 1002}, {1, 1003}, {2, 1012}, {4, 1022}, {6, 1032}, {3, 1013}, {5, 1023}},
			[]upset{{}, {again: 1}}, 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, lost := upsets(sent, 2, tt.seen, []int64{1005, 1100})
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(upset{})); diff != "" || lost != tt.lost {
				t.Errorf("upsets: %d lost, want %d (-want +got):\n%s", lost, tt.lost, diff)
			}
		})
	}
}
