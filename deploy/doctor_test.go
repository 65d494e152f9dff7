// Package deploy_test runs the scripts of this folder against commands that only pretend.
package deploy_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tools are what doctor.sh takes for granted on every system.
var tools = []string{"awk", "cat", "dirname", "env", "grep", "mktemp", "rm", "sed", "sh", "sleep", "tr"}

// machine is one that doctor.sh is run on: its commands by name, each a shell script, or empty
// if it is missing.
type machine map[string]string

// fine is a machine on which nothing is missing.
var fine = machine{
	"uname":   `case $1 in -s) echo Linux ;; -m) echo x86_64 ;; esac`,
	"apt-get": `exit 1`,
	"go":      `case $1 in version) echo go version go1.99.1 linux/amd64 ;; env) echo local ;; esac`,
	"docker":  `case $1 in version) echo 28.2.2 ;; info) echo 8589934592 ;; esac`,
	"tilt":    `echo v0.37.6, built 2026-08-08`,
	"kind":    `exit 1`,
	"kubectl": kubectl(nil),
}

// kubectl is a script that answers commands by a part of them, as this cluster does but for
// what is changed. An empty answer is an error.
func kubectl(changed map[string]string) string {
	answers := map[string]string{
		"version --client":             `  "gitVersion": "v1.33.1",`,
		"config view --minify":         "kind-keyline\nkind-keyline\nhttps://127.0.0.1:6443",
		"config view -o":               "arn:aws:eks:eu-west-1:1:cluster/prod prod",
		"get --raw /version":           `  "gitVersion": "v1.32.0+k3s1",`,
		"get nodes":                    "node1|arm64|8139772Ki|True|False",
		"get storageclass":             "slow|\nstandard|true",
		"get configmap local-registry": "",
	}
	maps.Copy(answers, changed)
	script := `printf '%s\n' "$*" >>"$KUBECTL_LOG"; case "$*" in` + "\n"
	for _, part := range slices.Sorted(maps.Keys(answers)) {
		if answers[part] == "" {
			script += fmt.Sprintf("*'%s'*) echo 'a try that failed' >&2; echo 'no such thing' >&2; exit 1 ;;\n", part)
		} else {
			script += fmt.Sprintf("*'%s'*) cat <<'END'\n%s\nEND\n;;\n", part, answers[part])
		}
	}
	return script + "*) exit 1 ;;\nesac"
}

// examine runs doctor.sh, in a shell that may be several words, on a machine that is fine but
// for what is changed.
func examine(t *testing.T, shell string, changed machine, vars ...string) report {
	t.Helper()
	bin, tmp := t.TempDir(), t.TempDir()
	for _, tool := range tools {
		if err := os.Symlink(look(t, tool), filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	commands := maps.Clone(fine)
	maps.Copy(commands, changed)
	for name, text := range commands {
		if text != "" {
			writeScript(t, filepath.Join(bin, name), "#!/bin/sh\n"+text+"\n")
		}
	}
	args := append(strings.Fields(shell), "doctor.sh")
	cmd := exec.Command(look(t, args[0]), args[1:]...)
	cmd.Env = append([]string{"PATH=" + bin, "TMPDIR=" + tmp, "HOME=/home/ada", "KUBECTL_LOG=" + bin + "/log", "DOCTOR_PORTS=1 nobody", "DOCTOR_PATIENCE=60"}, vars...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind (%v)", left, err)
	}
	asked, err := os.ReadFile(bin + "/log")
	if err != nil && commands["kubectl"] != "" {
		t.Error(err)
	}
	t.Logf("%s said:\n%s", args[0], out)
	return report{lines: strings.Split(strings.TrimSpace(string(out)), "\n"), status: cmd.ProcessState.ExitCode(), asked: string(asked)}
}

// writeScript writes while no process is started: one that had the file open for a moment
// would keep it from being run.
func writeScript(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Skipf("this machine has no %s", command)
	}
	return path
}

// report is what doctor.sh said, and the commands that kubectl was given.
type report struct {
	lines  []string
	status int
	asked  string
}

// has says whether a line, its spaces made single ones, begins so.
func (r report) has(begin string) bool {
	return slices.ContainsFunc(r.lines, func(line string) bool {
		return strings.HasPrefix(strings.Join(strings.Fields(line), " "), begin)
	})
}

// check compares with what is wanted: the beginnings of lines, and the last one.
func (r report) check(t *testing.T, status int, next string, lines ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("exit status %d, want %d", r.status, status)
	}
	if got, want := r.lines[len(r.lines)-1], "next: "+next; !strings.HasPrefix(got, want) {
		t.Errorf("it ends with %q, want %q", got, want)
	}
	for _, line := range lines {
		if !r.has(line) {
			t.Errorf("no line begins with %q", line)
		}
	}
	if status == 0 && r.has("FAIL") {
		t.Error("something FAILed, with exit status 0")
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	const (
		makeUp = "make up"
		noGo   = "sudo rm -rf /usr/local/go; curl -fsSL https://go.dev/dl/go1."
		noKind = "export PATH=$PATH:$(go env GOPATH)/bin; go install sigs.k8s.io/kind@v"
		kindUp = "kind create cluster --name keyline"
	)
	remote := map[string]string{"config view --minify": "prod\narn:aws:eks:eu-west-1:1:cluster/prod\nhttps://1.eks.amazonaws.com"}
	for _, tt := range []struct {
		name    string
		changed machine
		cluster map[string]string // what kubectl answers otherwise
		next    string
		lines   []string
	}{
		{"everything is there", nil, nil, makeUp, []string{
			"ok go 1.99.1", "ok docker engine 28.2.2 with 8.0 GiB", "ok tilt 0.37.6", "ok kubectl 1.33.1",
			"ok context kind-keyline at https://127.0.0.1:6443", "ok cluster Kubernetes 1.32.0+k3s1", "ok node Ready: node1 (arm64)",
			"ok memory 7.7 GiB", "ok storage volumes of class standard", "ok kind", "ok ports free: 1"}},
		{"no Go", machine{"go": ""}, nil, noGo, []string{"FAIL go not found", "ok docker", "ok storage"}},
		{"an old Go", machine{"go": `case $1 in version) echo go version go1.22.2 linux/amd64 ;; env) echo local ;; esac`}, nil, noGo,
			[]string{"FAIL go 1.22.2; go.mod asks for 1."}},
		{"an old Go that fetches a newer one", machine{"go": `case $1 in version) echo go version go1.22.2 linux/amd64 ;; env) echo auto ;; esac`}, nil, makeUp,
			[]string{"warn go 1.22.2, fetches 1."}},
		{"no docker", machine{"docker": ""}, nil, "curl -fsSL https://get.docker.com", []string{"FAIL docker not found"}},
		{"no engine", machine{"docker": "echo Cannot connect >&2; exit 1"}, nil, "sudo systemctl start docker", []string{"FAIL docker its engine does not answer: Cannot connect"}},
		{"an engine of others", machine{"docker": "echo permission denied >&2; exit 1"}, nil, "sudo usermod -aG docker", nil},
		{"a small engine", machine{"docker": `case $1 in version) echo 28.2.2 ;; info) echo 2073000000 ;; esac`}, nil, makeUp, []string{"warn docker engine 28.2.2 with 1.9 GiB"}},
		{"no tilt", machine{"tilt": ""}, nil, "curl -fsSL https://raw.githubusercontent.com/tilt-dev/tilt/", []string{"FAIL tilt not found"}},
		{"no kubectl", machine{"kubectl": ""}, nil, "curl -fLo /tmp/kubectl https://dl.k8s.io/", []string{"FAIL kubectl not found", "ok ports"}},
		{"an old kubectl", nil, map[string]string{"version --client": `"gitVersion": "v1.29.15"`}, "curl -fLo /tmp/kubectl https://dl.k8s.io/",
			[]string{"FAIL kubectl 1.29.15; 1.30 or newer"}},
		{"neither Debian nor a Mac", machine{"apt-get": "", "tilt": ""}, nil, "see https://docs.tilt.dev/", nil},
		{"no context", nil, map[string]string{"config view --minify": ""}, kindUp, []string{"FAIL context kubectl has no current context"}},
		{"no context, and no kind", machine{"kind": ""}, map[string]string{"config view --minify": ""}, noKind, nil},
		{"a context without a server", nil, map[string]string{"config view --minify": "kind-a\nkind-a\n"}, kindUp, []string{"FAIL context kind-a has no server"}},
		{"a remote context", nil, remote, kindUp, []string{"FAIL context prod is not local (cluster arn:aws:eks:eu-west-1:1:cluster/prod at https://1.eks.amazonaws.com)"}},
		{"a cluster that does not answer", nil, map[string]string{"get --raw /version": ""}, "docker start keyline-control-plane", []string{"FAIL cluster does not answer: no such thing"}},
		{"an old cluster", nil, map[string]string{"get --raw /version": `"gitVersion": "v1.28.3"`}, kindUp, []string{"FAIL cluster Kubernetes 1.28.3; 1.30 or newer"}},
		{"no node", nil, map[string]string{"get nodes": "\n"}, "kubectl wait --for=condition=Ready node", []string{"FAIL node none is Ready", "ok storage"}},
		{"a node that is not Ready", nil, map[string]string{"get nodes": "node1|arm64|8139772Ki|Unknown|Unknown"}, "kubectl wait --for=condition=Ready node", []string{"FAIL node none is Ready"}},
		{"a node of another kind", nil, map[string]string{"get nodes": "node1|s390x|8Gi|True|False"}, kindUp, []string{"FAIL node the images are for amd64 and arm64, not for node1 (s390x)"}},
		{"little memory", nil, map[string]string{"get nodes": "a|amd64|1024Mi|True|False\nb|amd64|2000000000|True|False"}, makeUp, []string{"warn memory 1.8 GiB"}},
		{"a full disk", nil, map[string]string{"get nodes": "a|amd64|8Gi|True|True"}, makeUp, []string{"warn disk almost full on a"}},
		{"no default StorageClass", nil, map[string]string{"get storageclass": "slow|false"}, "kubectl annotate storageclass slow ", []string{"FAIL storage"}},
		{"no StorageClass", nil, map[string]string{"get storageclass": "\n", "config view --minify": "minikube\nminikube\nhttps://192.168.49.2:8443"}, "minikube -p minikube addons enable default-storageclass", nil},
		{"no kind for its cluster", machine{"kind": ""}, nil, noKind, []string{"FAIL kind not found"}},
		{"no kind for one with a registry", machine{"kind": ""}, map[string]string{"get configmap local-registry": "configmap/local-registry-hosting"}, makeUp, []string{"ok kind"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			commands := maps.Clone(tt.changed)
			if tt.cluster != nil {
				commands = machine{"kubectl": kubectl(tt.cluster)}
				maps.Copy(commands, tt.changed)
			}
			status := 1
			if tt.next == makeUp {
				status = 0
			}
			examine(t, "sh", commands).check(t, status, tt.next, tt.lines...)
		})
	}
}

// Whatever sh is on a system: dash, busybox, and bash as Macs have it.
func TestDoctor_shells(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"dash", "busybox sh", "bash --posix"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			examine(t, shell, nil).check(t, 0, "make up", "ok go", "ok storage", "ok ports free: 1")
			all := machine{"go": "", "docker": "", "tilt": "", "kubectl": ""}
			examine(t, shell, all, "DOCTOR_PORTS="+listen(t)+" us").check(t, 1, "",
				"FAIL go", "FAIL docker", "FAIL tilt", "FAIL kubectl", "FAIL port")
		})
	}
}

// Nothing but kubectl's own configuration is looked at before the context is known to be
// local, and everything after that names the context.
func TestDoctor_context(t *testing.T) {
	t.Parallel()
	for cluster, local := range map[string]bool{
		"kind-keyline": true, "kind": true, "k3d-x": true, "minikube": true, "docker-desktop": true, "docker-for-desktop-cluster": true,
		"rancher-desktop": true, "colima-work": true, "orbstack": true, "microk8s-cluster": true, "api-crc-testing:6443": true,
		"kindly": false, "gke_shop_europe-west1_prod": false, "kind-x.eu-west-1.eksctl.io": false, "orbstack-prod": false, "": false,
	} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			r := examine(t, "sh", machine{"kubectl": kubectl(map[string]string{
				"config view --minify": "its-name\n" + cluster + "\nhttps://127.0.0.1:6443",
				"config view -o":       "prod prod\nk3d-a the-one\nkind-b other",
			})})
			if local {
				r.check(t, 0, "make up", "ok context its-name at https://127.0.0.1:6443")
			} else {
				r.check(t, 1, "kubectl config use-context the-one", "FAIL context its-name is not local")
			}
			for _, command := range strings.Split(strings.TrimSpace(r.asked), "\n") {
				config := strings.HasPrefix(command, "config view ") || strings.HasPrefix(command, "version --client")
				if !config && (!local || !strings.HasPrefix(command, "--context its-name --request-timeout=5s get ")) {
					t.Errorf("kubectl was told to %s", command)
				}
			}
		})
	}
	t.Run("minikube under another name", func(t *testing.T) {
		t.Parallel()
		examine(t, "sh", machine{"kubectl": kubectl(map[string]string{
			"config view --minify": "x\nx\nhttps://192.168.49.2:8443\n/home/ada/.minikube/ca.crt",
		})}).check(t, 0, "make up", "ok context x at")
	})
	t.Run("a cluster of any name, where the context has a local one's", func(t *testing.T) {
		t.Parallel()
		examine(t, "sh", machine{"kubectl": kubectl(map[string]string{
			"config view --minify": "kind-x\nx\nhttps://127.0.0.1:6443",
		})}).check(t, 0, "make up", "ok context kind-x at")
	})
	t.Run("a local name far away", func(t *testing.T) {
		t.Parallel()
		examine(t, "sh", machine{"kubectl": kubectl(map[string]string{
			"config view --minify": "kind-prod\nkind-prod\nhttps://203.0.113.7:6443",
		})}).check(t, 1, "", "FAIL context kind-prod has a local cluster's name, but is at https://203.0.113.7:6443")
	})
	t.Run("the Tiltfile takes the same names", func(t *testing.T) {
		t.Parallel()
		list := func(text, from, to, junk string) []string {
			_, text, _ = strings.Cut(text, from)
			text, _, _ = strings.Cut(text, to)
			names := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(junk, r) })
			slices.Sort(names)
			return names
		}
		script := list(read(t, "doctor.sh"), "*.eksctl.io) return 1 ;;", ") return 0", "|\\ \t\n")
		tilt := list(read(t, "../Tiltfile"), "LOCAL = [", "]", "', ")
		if !slices.Equal(script, tilt) {
			t.Errorf("the doctor takes %q, the Tiltfile %q", script, tilt)
		}
	})
	t.Run("and forwards the same ports", func(t *testing.T) {
		t.Parallel()
		text := read(t, "../Tiltfile")
		for _, port := range strings.Fields("8080 8082 8083 16686 8025 8081 9094") {
			if !strings.Contains(read(t, "doctor.sh"), "\n"+port+" ") || !strings.Contains(text, port) {
				t.Errorf("port %s is not in both", port)
			}
		}
	})
}

func TestDoctor_ports(t *testing.T) {
	t.Parallel()
	busy := listen(t)
	for _, tt := range []struct {
		name    string
		changed machine
		status  int
		next    string
		line    string
	}{
		{"lsof knows by whom", machine{"lsof": `printf 'COMMAND PID USER\nkeyline 4711 ada IPv4 TCP 127.0.0.1:8080 (LISTEN)\n'`},
			1, "kill 4711", "FAIL port " + busy + " taken by keyline (PID 4711), wanted for shop"},
		{"ss knows by whom", machine{"ss": `echo 'LISTEN 0 4096 127.0.0.1:8080 0.0.0.0:* users:(("keyline",pid=4711,fd=3))'`}, 1, "kill 4711", "FAIL port"},
		{"a container", machine{"lsof": `echo 'docker-pr 12 root IPv4 TCP *:8080 (LISTEN)'`}, 1, "docker ps --filter publish=" + busy, "FAIL port"},
		{"nobody knows", nil, 1, "sudo lsof -nP -iTCP:" + busy, "FAIL port " + busy + " taken, wanted for shop"},
		{"Tilt runs already", machine{"lsof": `echo 'tilt 12 ada IPv4 TCP 127.0.0.1:8080 (LISTEN)'`}, 0, "make up", "warn ports held by Tilt, which runs already"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			examine(t, "sh", tt.changed, "DOCTOR_PORTS="+busy+" shop\n1 nobody").check(t, tt.status, tt.next, tt.line, "ok ports free: 1")
		})
	}
}

// listen returns a port that is taken until the test ends.
func listen(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the ports of the pretended machine are looked for in Linux' /proc")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDoctor_mac(t *testing.T) {
	t.Parallel()
	mac := machine{
		"uname":   `case $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac`,
		"netstat": `printf 'tcp4 0 0 127.0.0.1.8080 *.* LISTEN\ntcp46 0 0 *.8025 *.* LISTEN\ntcp4 0 0 10.0.0.2.9092 1.2.3.4.443 ESTABLISHED\n'`,
		"tilt":    "",
	}
	examine(t, "sh", mac, "DOCTOR_PORTS=8080 a\n8025 b\n9092 c").check(t, 1, "brew install tilt",
		"FAIL port 8080", "FAIL port 8025", "ok ports free: 9092", "-> brew install tilt")
}

// A command that never answers is given up. On a busy machine others may be so slow, too.
func TestDoctor_hanging(t *testing.T) {
	t.Parallel()
	examine(t, "sh", machine{"docker": "exec sleep 60"}, "DOCTOR_PATIENCE=1").check(t, 1, "",
		"FAIL docker its engine does not answer: no answer within 1 s")
}
