package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

// role is what this program may be in a process of its own, so that what it costs is on an account
// of its own. It is told one thing in JSON on its input, says what it has to say in JSON on its
// output, and ends with its input, so that none is left behind.
type role func(ctx context.Context, told json.RawMessage, say func(any) error) error

var roles = map[string]role{
	"broker":            as(serveBroker),
	"shop":              as(serveShop),
	"orders":            as(serveOrders),
	"orders-plain":      as(servePlainOrders),
	"waiting":           as(waitingKeys),
	"waiting-in-memory": as(waitingInMemory),
	"member":            as(member),
	"member-kgo":        as(memberKgo),
	"member-inbox":      as(memberInbox),
}

func as[T any](be func(ctx context.Context, told T, say func(any) error) error) role {
	return func(ctx context.Context, text json.RawMessage, say func(any) error) error {
		var told T
		if err := json.Unmarshal(text, &told); err != nil {
			return err
		}
		return be(ctx, told, say)
	}
}

// roleFlag is hidden: only spawn knows it.
const roleFlag = "-role"

// childRole is what this process was started as; ok is false for what a person has started.
func childRole() (name string, ok bool) {
	if len(os.Args) != 3 || os.Args[1] != roleFlag {
		return "", false
	}
	return os.Args[2], true
}

// beChild is the other process.
func beChild(ctx context.Context, name string) error {
	signal.Ignore(os.Interrupt) // a terminal sends it to all, and this one may still be needed
	be, ok := roles[name]
	if !ok {
		return fmt.Errorf("there is no role %q", name)
	}
	var told json.RawMessage
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&told); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // it ends with the process: a read of a pipe has no other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return be(ctx, told, json.NewEncoder(os.Stdout).Encode)
}

// child is such a process, as its parent sees it.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.Reader
	said tail // on its standard error
}

// tail keeps the end of what is written. Its writer is one goroutine, which has ended when it is
// read.
type tail []byte

const tailBytes = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-tailBytes):]
	return len(p), nil
}

// spawn starts one and tells it what to do.
func spawn(role string, tell any) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{role: role, cmd: exec.Command(self, roleFlag, role)}
	c.cmd.Stderr = &c.said
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(c.in).Encode(tell); err != nil {
		return nil, c.explain(errors.Join(err, c.end()))
	}
	return c, nil
}

// spawnServer starts one that serves something, which it says once it does.
func spawnServer[T any](role string, tell any) (c *child, said T, err error) {
	if c, err = spawn(role, tell); err != nil {
		return nil, said, err
	}
	if err := json.NewDecoder(c.out).Decode(&said); err != nil {
		return nil, said, c.explain(errors.Join(err, c.end()))
	}
	return c, said, nil
}

// ask starts one, waits for its end, and returns the one thing that it says.
func ask[T any](role string, tell any) (said T, err error) {
	c, said, err := spawnServer[T](role, tell)
	if err != nil {
		return said, err
	}
	return said, c.explain(c.end())
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stopPatience is how long one may take to end.
const stopPatience = 30 * time.Second

// end lets it end, and waits for that.
func (c *child) end() error {
	defer time.AfterFunc(stopPatience, func() { _ = c.cmd.Process.Kill() }).Stop() // it has ended, or Wait tells
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// explain adds what a child that has ended has said, to an error that may be its fault.
func (c *child) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if len(c.said) == 0 {
		return fmt.Errorf("the process %s: %w", c.role, err)
	}
	return fmt.Errorf("the process %s: %w; at the end it said:\n%s", c.role, err, c.said)
}

// procStatus is a figure in KiB of /proc about a process, such as VmHWM, the most memory that it
// ever had; 0 where nobody says.
func procStatus(pid int, name string) (kib int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kib, _ = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
		}
	}
	return kib
}
