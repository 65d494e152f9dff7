package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBuilds(t *testing.T) {
	t.Parallel()
	got, err := parseBuilds("RUN_BUILD = go build\nPROGRAMS = a b\nIMAGE_TAGS = x,y\nIMAGE_BUILD = go build -tags $(IMAGE_TAGS)\n")
	if err != nil {
		t.Error(err)
	}
	want := builds{run: "go build", image: "go build -tags x,y", programs: []string{"a", "b"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(builds{})); diff != "" {
		t.Errorf("builds (-want +got):\n%s", diff)
	}
	if _, err := parseBuilds("PROGRAMS = a\n"); err == nil {
		t.Error("a Makefile without the lines: no error")
	}
}
