package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// inRepository runs a command there.
func inRepository(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = repository, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// programSizes are the metrics of what was built.
type programSizes struct {
	metrics []metric
	mb      []float64
}

func (p *programSizes) add(name, gate, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	p.metrics, p.mb = append(p.metrics, metric{name, "MB", gate, false}), append(p.mb, float64(info.Size())/1e6)
	return nil
}

// sizes builds the images' programs as make images does; none of them if it has to be short.
func (s *starting) sizes(ctx context.Context, short bool) (p programSizes, err error) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		return p, err
	}
	build, programs, err := imageBuild(string(makefile))
	if err != nil {
		return p, err
	}
	if short {
		programs = nil
	}
	if err := p.add("all in one, stripped", "<= 40", s.program); err != nil {
		return p, err
	}
	for _, name := range programs {
		file := filepath.Join(s.dir, name)
		if err := inRepository(ctx, []string{"OUT=" + file}, "sh", "-c", build+` -o "$OUT" ./services/`+name+"/cmd/"+name); err != nil {
			return p, err
		}
		if err := p.add(name+" in its image", "<= 40, moonshot 15 (an image adds 0.85)", file); err != nil {
			return p, err
		}
	}
	return p, nil
}

// imageBuild is the command of the Makefile that builds a program of an image, and their names.
func imageBuild(makefile string) (command string, programs []string, err error) {
	variable := func(name string) (value string) {
		found := regexp.MustCompile(`(?m)^` + name + ` = (.+)$`).FindStringSubmatch(makefile)
		if found == nil {
			err = errors.Join(err, fmt.Errorf("the Makefile has no line that begins with %s =", name))
			return ""
		}
		return found[1]
	}
	tags := variable("IMAGE_TAGS")
	return strings.ReplaceAll(variable("IMAGE_BUILD"), "$(IMAGE_TAGS)", tags), strings.Fields(variable("PROGRAMS")), err
}
