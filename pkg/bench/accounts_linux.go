package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of a process's times in /proc, which Linux shows in hundredths of a second
// on every architecture (proc_pid_stat(5), USER_HZ).
const clockTick = 10 * time.Millisecond

// stat is what /proc says of a process.
type stat struct {
	parent      int
	own, waited time.Duration // of the processor; waited is that of its children that have ended
}

func readStat(pid int) (s stat, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, false
	}
	// The name before it may contain anything, but the last parenthesis ends it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 15 {
		return s, false
	}
	ticks := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return time.Duration(n) * clockTick
	}
	s.parent, _ = strconv.Atoi(fields[1])
	s.own, s.waited = ticks(11)+ticks(12), ticks(13)+ticks(14)
	return s, true
}

// treeTime is what a process and its children have used of the processor so far, those that have
// ended among them; 0 where nobody says.
func treeTime(pid int) time.Duration {
	root, ok := readStat(pid)
	if !ok {
		return 0
	}
	sum := root.own + root.waited
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		child, _ := strconv.Atoi(filepath.Base(name))
		if s, ok := readStat(child); ok && s.parent == pid {
			sum += s.own + s.waited
		}
	}
	return sum
}

// stolenTime is what the host has given to other machines so far, while processors of this one had
// something to do (proc_stat(5), steal).
func stolenTime() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	fields := strings.Fields(string(text[:max(0, strings.IndexByte(string(text), '\n'))])) // cpu user nice system idle iowait irq softirq steal
	if len(fields) < 9 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[8], 10, 64)
	return time.Duration(n) * clockTick
}

// listener finds the process of this machine that listens at an address; 0 if there is none, or it
// is not ours to see.
func listener(addr string) (pid int) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || !onLoopback(addr) {
		return 0
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line) // sl local remote state … inode at 9
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && inodes[to] {
			found, _ := strconv.Atoi(strings.Split(file, "/")[2])
			if pid == 0 || found < pid { // a server that forks has it open in all its children
				pid = found
			}
		}
	}
	return pid
}

func onLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
