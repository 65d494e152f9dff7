package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// cluster is where the shop runs, as kubectl reaches it.
type cluster struct {
	context   string // empty: the current one
	namespace string
}

// kubectl runs one command, and returns what it printed.
func (c cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectlIn(ctx, "", args...)
}

// kubectlIn is kubectl that reads in.
func (c cluster) kubectlIn(ctx context.Context, in string, args ...string) (string, error) {
	cmd := c.command(ctx, args...)
	cmd.Stdin = strings.NewReader(in)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

func (c cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	where := []string{"--namespace", c.namespace}
	if c.context != "" {
		where = append(where, "--context", c.context)
	}
	cmd := exec.CommandContext(ctx, "kubectl", append(where, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// forward is a way to a port of a service, opened again whenever the pod at its end is gone.
type forward struct {
	stop  context.CancelFunc
	ended chan struct{}

	mu   sync.Mutex
	url  string             // empty while there is none
	end  context.CancelFunc // of the kubectl that holds it open
	open chan struct{}      // closed when url is set, replaced when it is not
	last error              // of the newest attempt
}

// forward opens a way to a target such as "service/order", from a free port here.
func (c cluster) forward(target string, port int) *forward { return c.forwardTo(target, 0, port) }

func (c cluster) forwardTo(target string, here, port int) *forward {
	ctx, cancel := context.WithCancel(context.Background())
	f := &forward{stop: cancel, ended: make(chan struct{}), open: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for ctx.Err() == nil {
			one, end := context.WithCancel(ctx)
			f.keep(end, c.command(one, "port-forward", "--address", "127.0.0.1", target, fmt.Sprintf("%d:%d", here, port)))
			end()
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return f
}

var forwarding = regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:\d+) ->`)

// keep holds the way open for as long as kubectl does.
func (f *forward) keep(end context.CancelFunc, cmd *exec.Cmd) {
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.set("", nil, err)
		return
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := forwarding.FindStringSubmatch(lines.Text()); m != nil {
			f.set("http://"+m[1], end, nil)
		}
	}
	err = cmd.Wait()
	f.set("", nil, errors.Join(err, errors.New(strings.TrimSpace(problem.String()))))
}

func (f *forward) set(url string, end context.CancelFunc, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (f.url == "") != (url == "") {
		if url == "" {
			f.open = make(chan struct{})
		} else {
			close(f.open)
		}
	}
	f.url, f.end, f.last = url, end, err
}

// renew gives a way up that has not answered, unless another is open already: kubectl does not
// notice that a pod was removed by force, and goes on to accept connections for it.
func (f *forward) renew(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.url == url && f.end != nil {
		f.end()
	}
}

// at waits for the way to be open, and returns its URL.
func (f *forward) at(ctx context.Context) (string, error) {
	for {
		f.mu.Lock()
		url, open := f.url, f.open
		f.mu.Unlock()
		if url != "" {
			return url, nil
		}
		select {
		case <-open:
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			return "", errors.Join(ctx.Err(), f.last)
		}
	}
}

func (f *forward) close() {
	f.stop()
	<-f.ended
}

// exitCode is the exit code of a program that kubectl ran in a pod, 0 if err is nil or another.
func exitCode(err error) int {
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return ended.ExitCode()
	}
	return 0
}
