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

// build builds a service's program by a command of the Makefile.
func build(ctx context.Context, command, service, file string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", command+` -o "$OUT" ./services/`+service+"/cmd/"+service)
	cmd.Dir, cmd.Env = repository, append(os.Environ(), "OUT="+file)
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
func (s *starting) sizes(ctx context.Context, how builds, short bool) (p programSizes, err error) {
	if err := p.add("all in one, stripped", "<= 40", s.program); err != nil || short {
		return p, err
	}
	for _, name := range how.programs {
		file := filepath.Join(s.dir, name)
		if err := build(ctx, how.image, name, file); err != nil {
			return p, err
		}
		if err := p.add(name+" in its image", "<= 40, moonshot 15 (an image adds 0.85)", file); err != nil {
			return p, err
		}
	}
	return p, nil
}

// builds are the commands of the Makefile that build programs.
type builds struct {
	run, image string   // for make run, and for an image
	programs   []string // of the images
}

func readBuilds() (builds, error) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		return builds{}, err
	}
	return parseBuilds(string(makefile))
}

func parseBuilds(makefile string) (b builds, err error) {
	variable := func(name string) (value string) {
		found := regexp.MustCompile(`(?m)^` + name + ` = (.+)$`).FindStringSubmatch(makefile)
		if found == nil {
			err = errors.Join(err, fmt.Errorf("the Makefile has no line that begins with %s =", name))
			return ""
		}
		return found[1]
	}
	tags := variable("IMAGE_TAGS")
	b = builds{variable("RUN_BUILD"), strings.ReplaceAll(variable("IMAGE_BUILD"), "$(IMAGE_TAGS)", tags), strings.Fields(variable("PROGRAMS"))}
	return b, err
}
