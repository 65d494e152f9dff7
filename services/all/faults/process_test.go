//go:build unix

package faults_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/keyline/pkg/eventtest"
)

// process is one service in a process of its own. It may be started again, on the same
// addresses, once it has ended.
type process struct {
	r            *rig
	service      string
	name         string // service-0, service-1, …
	program      string // empty: this test binary
	public, help string // its addresses, for customers and operators
	vars         []string
	log          string      // the file that it logs to
	away         atomic.Bool // customers are sent elsewhere, if there is another

	mu     sync.Mutex
	cmd    *exec.Cmd
	stdin  io.Closer
	ended  chan struct{}
	starts int
	exits  []string
	memory int64 // the most that an earlier life has had
}

// add makes a replica of a service, without starting it. vars come after all others.
func (r *rig) add(service string, vars ...string) *process {
	r.Helper()
	n := len(r.replicas(service))
	p := &process{r: r, service: service, name: fmt.Sprintf("%s-%d", service, n), ended: make(chan struct{})}
	// It binds its ports again after each crash, and must find them free.
	p.public, _ = eventtest.FreeAddr(r)
	p.help, _ = eventtest.FreeAddr(r)
	close(p.ended)
	p.log = filepath.Join(r.dir, p.name+".log")
	p.vars = append([]string{
		"HTTP_ADDR=" + p.public, "ADMIN_ADDR=" + p.help, "KAFKA_BROKERS=" + r.brokers, "SCHEMA_REGISTRY_URL=" + r.registryURL,
		"DATABASE_URL=" + r.databaseURL(service), "SMTP_ADDR=" + r.mail.addr, "SMTP_TLS=off", "OTEL_TRACES_SAMPLER=always_off",
	}, vars...)
	r.processes = append(r.processes, p)
	return p
}

// replicas are the processes of a service.
func (r *rig) replicas(service string) (all []*process) {
	for _, p := range r.processes {
		if p.service == service {
			all = append(all, p)
		}
	}
	return all
}

// start starts the process and returns at once.
func (p *process) start() {
	p.r.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	program := p.program
	if program == "" {
		program = os.Args[0]
	}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		p.r.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1", childVar + "=" + p.service}, p.vars...)
	cmd.Stdout, cmd.Stderr = log, log
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.r.Fatal(err)
	}
	p.cmd, p.stdin, p.ended = cmd, stdin, make(chan struct{})
	p.starts++
	go func(ended chan struct{}) {
		_ = cmd.Wait() // its state says the same
		p.mu.Lock()
		p.exits = append(p.exits, cmd.ProcessState.String())
		p.mu.Unlock()
		close(ended)
	}(p.ended)
}

func (p *process) alive() bool {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
		return false
	default:
		return true
	}
}

// signal sends a signal and does not wait.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remember()
	_ = p.cmd.Process.Signal(s) // it may have ended by itself
}

// kill ends the process as a crash would, and returns once it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	p.wait()
}

// restart kills the process and starts it again at once.
func (p *process) restart() {
	p.kill()
	p.start()
}

// wait returns once the process has ended.
func (p *process) wait() {
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(patience):
		p.r.Errorf("%s does not end", p.name)
		_ = p.cmd.Process.Kill()
		<-ended
	}
}

// stop ends the process as an orchestrator does, and wants that to be clean. It returns how
// long it took.
func (p *process) stop() time.Duration {
	begun := time.Now()
	p.away.Store(true)
	p.signal(syscall.SIGTERM)
	p.wait()
	if status := p.cmd.ProcessState.ExitCode(); status != 0 {
		p.r.Errorf("%s stopped with status %d: %s", p.name, status, p.tail())
	}
	return time.Since(begun)
}

// remember keeps the peak of the process's memory, which is gone with it. p.mu is held.
func (p *process) remember() { p.memory = max(p.memory, peak(p.cmd.Process.Pid)) }

// peak is the most memory that a process has had; 0 where the system does not tell.
func peak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	fields := strings.Fields(string(rest))
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}

// cpu is how long a process has computed; 0 where the system does not tell.
func (p *process) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // 100 ticks a second on every Linux
}

// ready reports whether the process answers that it is.
func (p *process) ready() bool {
	status, _, err := p.r.get("http://" + p.public + "/readyz")
	return err == nil && status == http.StatusOK
}

// awaitReady returns once the process is ready.
func (p *process) awaitReady() {
	p.r.Helper()
	defer p.away.Store(false)
	if !within(bootPatience, func() bool {
		if !p.alive() {
			p.r.Fatalf("%s has ended: %s", p.name, p.tail())
		}
		return p.ready()
	}) {
		p.r.Fatalf("%s does not become ready: %s", p.name, p.tail())
	}
}

// tail is the end of the process's log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

var sample = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{[^}]*\})? ([0-9.e+-]+)$`)

// metric is the sum of a metric over its labels in the process's present life; 0 if it does
// not answer.
func (p *process) metric(name string) (sum float64) {
	_, text, err := p.r.get("http://" + p.public + "/metrics")
	if err != nil {
		return 0
	}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		if m[1] == name {
			v, _ := strconv.ParseFloat(m[2], 64)
			sum += v
		}
	}
	return sum
}

// wrecks are lines of a log that no fault excuses.
var wrecks = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|.*SIGSEGV).*$`)
