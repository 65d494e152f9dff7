package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// repository is its root, seen from the folder that the benchmark runs in.
const repository = "../.."

// startWorks build the shop's program, as make run does but stripped, and the images' beforehand.
func startWorks(ctx context.Context, r *rig) ([]work, error) {
	dir, err := os.MkdirTemp("", "keyline-bench-")
	if err != nil {
		return nil, err
	}
	r.closes = append(r.closes, func() error { return os.RemoveAll(dir) })
	s := &starting{dir: dir, idle: r.plan.idle, program: filepath.Join(dir, "keyline")}
	how, err := readBuilds()
	if err != nil {
		return nil, err
	}
	if err := build(ctx, how.run+` -trimpath -ldflags="-s -w"`, "all", s.program); err != nil {
		return nil, err
	}
	sides := []side{{"keyline", "", s.shop}}
	if s.kafkaThere() && !r.plan.short {
		if err := s.kafka(ctx, 1, new(watch)); err != nil { // it formats its folder
			return nil, fmt.Errorf("the Kafka of .ci/rig: %w", err)
		}
		sides = append(sides, side{"a Kafka JVM alone, to its first answer", "", s.kafka})
	}
	sizes, err := s.sizes(ctx, how, r.plan.short)
	if err != nil {
		return nil, err
	}
	return []work{
		{
			name: "B12 start, all in one", n: 1, sides: sides,
			metrics: []metric{
				{"to the first confirmed order", "ms", "<= 1000, moonshot 150", false},
				{"memory, idle", "MiB", "<= 38 (40 MB)", false},
			},
		},
		{
			name: "B12 size", n: 1, rounds: 1, metrics: sizes.metrics,
			sides: []side{{"keyline", "", func(_ context.Context, _ int, w *watch) error {
				w.start()
				w.stop()
				w.tell(sizes.mb...)
				return nil
			}}},
		},
	}, nil
}

// starting starts programs.
type starting struct {
	dir     string
	idle    time.Duration // after the first order, before a process's memory is read
	program string
	ports   []string // of the Kafka JVM: its own, and its controller's
}

// shop runs the shop from nothing to its first confirmed order.
func (s *starting) shop(ctx context.Context, _ int, w *watch) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	cmd := exec.Command(s.program)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "PORT=" + strconv.Itoa(port), "LOAD=0"}
	return s.timed(ctx, cmd, w, func(ctx context.Context) error {
		return untilConfirmed(ctx, fmt.Sprintf("http://127.0.0.1:%d/v1/orders", port))
	})
}

// timed tells the time from a program's start until it has done something, and its memory.
func (s *starting) timed(ctx context.Context, cmd *exec.Cmd, w *watch, until func(context.Context) error) (err error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	w.start()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		if !stop(cmd.Process, ended) && err == nil {
			err = errors.New("it did not stop")
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, said.String())
		}
	}()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := until(limited); err != nil {
		return err
	}
	w.stop()
	select {
	case err := <-ended:
		ended <- err
		return fmt.Errorf("ended early: %w", err)
	case <-time.After(s.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	w.tell(float64(w.ended.Sub(w.began))/1e6, float64(procStatus(cmd.Process.Pid, "VmRSS"))/1024)
	return nil
}

// stop asks a process to end, and makes it after a while.
func stop(p *os.Process, ended <-chan error) (itself bool) {
	_ = p.Signal(os.Interrupt) // it may have ended
	select {
	case <-ended:
		return true
	case <-time.After(20 * time.Second):
	}
	_ = p.Kill()
	<-ended
	return false
}

// untilConfirmed places orders until one is confirmed; before the shelves are filled, they are
// rejected.
func untilConfirmed(ctx context.Context, orders string) error {
	body, err := json.Marshal(map[string]any{
		"customer_id": "ada", "customer_email": "ada@example.com",
		"lines": []map[string]any{{"sku": "tea", "quantity": 1, "unit_price_cents": 450}},
	})
	if err != nil {
		return err
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		var order struct {
			OrderID string `json:"order_id"`
			Status  string `json:"status"`
		}
		err := callJSON(ctx, http.MethodPost, orders, body, strconv.Itoa(n), &order)
		if err == nil {
			err = callJSON(ctx, http.MethodGet, orders+"/"+order.OrderID+"?wait=5s", nil, "", &order)
		}
		if err == nil && order.Status == "confirmed" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("no order was confirmed, the last is %q", order.Status), err)
		}
	}
}

func callJSON(ctx context.Context, method, url string, body []byte, key string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", "bench-"+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
