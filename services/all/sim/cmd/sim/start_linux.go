package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// execute runs a command so that it takes the same course each time, as far as that can be
// had from outside. Of the kernel's random bytes, from which Go's runtime draws the order of
// maps and of select, it makes bytes of the seed; and it never lets the runtime's monitor
// run, the first thread that a process starts, which would interrupt goroutines after 10 ms
// of real time. Where a process may not be traced runs still work, and repeat less often.
func execute(cmd *exec.Cmd, seed uint64) error {
	runtime.LockOSThread() // the one who traces is a thread, and must live as long
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start under trace: %w", err)
	}
	monitor, err := prepare(cmd.Process.Pid, seed)
	if err != nil {
		_ = cmd.Process.Kill()
	} else {
		await(monitor)
	}
	return errors.Join(err, cmd.Wait())
}

// await returns when a traced thread has ended, which must be seen before the end of its
// process is told.
func await(thread int) {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(thread, &status, syscall.WALL, nil)
		if err == nil && status.Stopped() || err == syscall.EINTR {
			continue
		}
		return
	}
}

// prepare lets a process go that stands at its beginning, and returns the thread that stays
// behind.
func prepare(pid int, seed uint64) (monitor int, err error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return 0, fmt.Errorf("wait for the process to begin: %w", err)
	}
	if err := setRandom(pid, seed); err != nil {
		return 0, fmt.Errorf("set its random bytes: %w", err)
	}
	alone(pid)
	if err := syscall.PtraceSetOptions(pid, syscall.PTRACE_O_TRACECLONE); err != nil {
		return 0, fmt.Errorf("trace its threads: %w", err)
	}
	for signal := 0; ; signal = int(status.StopSignal()) {
		if err := syscall.PtraceCont(pid, signal); err != nil {
			return 0, fmt.Errorf("let it go: %w", err)
		}
		if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
			return 0, fmt.Errorf("wait for its first thread: %w", err)
		}
		if !status.Stopped() {
			return 0, errors.New("it has ended before its first thread")
		}
		if status.TrapCause() == syscall.PTRACE_EVENT_CLONE {
			break
		}
	}
	thread, err := syscall.PtraceGetEventMsg(pid)
	if err != nil {
		return 0, fmt.Errorf("find its first thread: %w", err)
	}
	return int(thread), syscall.PtraceDetach(pid)
}

// alone gives a process one processor, on which none of its threads interrupts another, or
// two threads of the runtime would race each other at the start. It need not succeed.
func alone(pid int) {
	const batch = 3 // SCHED_BATCH
	var mask [16]uint64
	size := unsafe.Sizeof(mask)
	if _, _, err := syscall.Syscall(syscall.SYS_SCHED_GETAFFINITY, 0, size, uintptr(unsafe.Pointer(&mask))); err != 0 {
		return
	}
	var allowed []int
	for cpu := range 64 * len(mask) {
		if mask[cpu/64]>>(cpu%64)&1 == 1 {
			allowed = append(allowed, cpu)
		}
	}
	cpu := allowed[int(turn.Add(1))%len(allowed)]
	mask = [16]uint64{}
	mask[cpu/64] = 1 << (cpu % 64)
	_, _, _ = syscall.Syscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(pid), size, uintptr(unsafe.Pointer(&mask)))
	var priority int32
	_, _, _ = syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(pid), batch, uintptr(unsafe.Pointer(&priority)))
}

var turn atomic.Int64

// setRandom overwrites what AT_RANDOM of the process's auxiliary vector points to.
func setRandom(pid int, seed uint64) error {
	const atRandom, word = 25, 8
	auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return err
	}
	bytes := make([]byte, 2*word)
	binary.NativeEndian.PutUint64(bytes, seed+1) // the runtime refuses words of zeros
	binary.NativeEndian.PutUint64(bytes[word:], ^seed)
	for ; len(auxv) >= 2*word; auxv = auxv[2*word:] {
		if binary.NativeEndian.Uint64(auxv) == atRandom {
			_, err := syscall.PtracePokeData(pid, uintptr(binary.NativeEndian.Uint64(auxv[word:])), bytes)
			return err
		}
	}
	return nil
}
