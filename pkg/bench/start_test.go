package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImageBuild(t *testing.T) {
	t.Parallel()
	command, programs, err := imageBuild("PROGRAMS = a b\nIMAGE_TAGS = x,y\nIMAGE_BUILD = go build -tags $(IMAGE_TAGS)\n")
	if err != nil || command != "go build -tags x,y" {
		t.Errorf("imageBuild: %q, %v", command, err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, programs); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if _, _, err := imageBuild("PROGRAMS = a\n"); err == nil {
		t.Error("a Makefile without the lines: no error")
	}
}
