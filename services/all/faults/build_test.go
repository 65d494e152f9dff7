//go:build unix

package faults_test

import (
	"encoding/json"
	"go/build"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// other builds the services anew with some files changed: a program that is this one but for
// what was changed. files are their new texts, by path.
func (r *rig) other(name string, files map[string]string) (program string) {
	r.Helper()
	replaced := map[string]string{}
	for path, text := range files {
		abs, err := filepath.Abs(path)
		if err != nil {
			r.Fatal(err)
		}
		changed := filepath.Join(r.dir, name+"-"+filepath.Base(path))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			r.Fatal(err)
		}
		replaced[abs] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		r.Fatal(err)
	}
	overlay, program := filepath.Join(r.dir, name+".json"), filepath.Join(r.dir, name)
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		r.Fatal(err)
	}
	if out, err := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		r.Fatalf("build %s: %v: %s", name, err, out)
	}
	return program
}

// edited is a file's text with one part changed; that must be there once.
func (r *rig) edited(path, from, to string) string {
	r.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	if strings.Count(string(text), from) != 1 {
		r.Fatalf("%s does not hold %q once", path, from)
	}
	return strings.Replace(string(text), from, to, 1)
}

// schemasDir is where the schemas are.
const schemasDir = "../../../schemas"

// TestF37_IncompatibleSchema: what would break a reader is refused before it is deployed, by
// the build and by the registry.
func TestF37_IncompatibleSchema(t *testing.T) {
	r := newRig(t, simple...)
	generate := filepath.Join(r.dir, "generate")
	if out, err := exec.Command("go", "build", "-o", generate, schemasDir+"/internal/generate").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	newest := schemas.Subjects()[0].Versions[1]
	for _, tt := range []struct {
		name, from, to string
		allowed        bool
	}{
		{"a new field with a default", `{"name": "currency"`, `{"name": "note", "type": "string", "default": "", "doc": "A note"}, {"name": "currency"`, true},
		{"a new field without a default", `{"name": "currency"`, `{"name": "note", "type": "string", "doc": "A note"}, {"name": "currency"`, false},
		{"a field that is gone", `{"name": "customer_id", "type": "string", "doc": "Who ordered, as the shop knows them"},`, ``, false},
		{"a field with another name", `"name": "customer_id"`, `"name": "client_id"`, false},
		{"a field of another type", `{"name": "quantity", "type": "int"`, `{"name": "quantity", "type": "string"`, false},
		{"a record with another name", `"name": "OrderPlaced"`, `"name": "OrderTaken"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(newest, tt.from) != 1 {
				t.Fatalf("the newest OrderPlaced does not hold %q once", tt.from)
			}
			text := strings.Replace(newest, tt.from, tt.to, 1)
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(schemasDir)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "order/order_placed.v3.avsc"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(generate, "-dir", dir).CombinedOutput()
			if (err == nil) != tt.allowed || err != nil && !strings.Contains(string(out), "order_placed") {
				t.Errorf("make generate ended with %v and said %q", err, out)
			}
			body := map[string]string{"schema": text}
			status, answer, err := r.do(r.ctx, http.MethodPost, r.registryURL+"/subjects/orders-shop.order.OrderPlaced/versions", body)
			want := http.StatusConflict
			if tt.allowed {
				want = http.StatusOK
			}
			if refused := status == http.StatusConflict || status == http.StatusUnprocessableEntity; err != nil || refused == tt.allowed {
				t.Errorf("the registry answered %d %s %v, want %d", status, answer, err, want)
			}
		})
	}
	t.Run("version 1 reads version 2, and back", func(t *testing.T) {
		now, err := codec.New(codec.Config{URL: r.registryURL}, schemas.OrderPlaced{})
		if err != nil {
			t.Fatal(err)
		}
		then, err := codec.New(codec.Config{URL: r.registryURL}, placedThen{})
		if err != nil {
			t.Fatal(err)
		}
		o := schemas.OrderPlaced{OrderID: "o", CustomerID: "c", CustomerEmail: "ada@example.com", Currency: "EUR", PlacedAt: time.UnixMilli(1).UTC(), Lines: []schemas.OrderLine{{SKU: "tea", Quantity: 1, UnitPriceCents: 450}}}
		newer, older := r.encode(now, o), r.encode(then, placedThen{o.OrderID, o.CustomerID, o.CustomerEmail, o.Lines, o.PlacedAt})
		if string(newer) == string(older) {
			t.Fatal("both versions write the same bytes")
		}
		read, err := codec.Decode[placedThen](r.ctx, then, newer)
		if err != nil || read.OrderID != "o" || read.Lines[0] != o.Lines[0] {
			t.Errorf("version 1 reads %+v of version 2: %v", read, err)
		}
		back, err := codec.Decode[schemas.OrderPlaced](r.ctx, now, older)
		if err != nil || back.OrderID != "o" || back.Currency != "EUR" {
			t.Errorf("version 2 reads %+v of version 1: %v", back, err)
		}
	})
	r.row.Lost = "nothing"
	r.note(6, "five changes refused by build and registry, one allowed by both")
}

func (r *rig) encode(c *codec.Codec, p interface {
	Schema() string
	Topic() string
	Key() string
}) []byte {
	r.Helper()
	err := c.Verify(r.ctx)
	if err == nil {
		var b []byte
		if b, err = c.Encode(p); err == nil {
			return b
		}
	}
	r.Fatal(err)
	return nil
}

// placedThen is what a service had before version 2.
type placedThen struct {
	OrderID       string              `avro:"order_id"`
	CustomerID    string              `avro:"customer_id"`
	CustomerEmail string              `avro:"customer_email"`
	Lines         []schemas.OrderLine `avro:"lines"`
	PlacedAt      time.Time           `avro:"placed_at"`
}

func (placedThen) Schema() string { return schemas.Subjects()[0].Versions[0] }
func (placedThen) Topic() string  { return schemas.TopicOrders }
func (o placedThen) Key() string  { return o.OrderID }

// TestF46_RollingUpgrade: version 1 and 2 of a service run side by side, in any order, under
// load. Version 1 is this program built with version 1 of OrderPlaced.
func TestF46_RollingUpgrade(t *testing.T) {
	if run == short {
		t.Skipf("skipped: it builds another program; %s=ci go test -v runs it, make faults in full", amountVar)
	}
	r := newRig(t, onEmbedded, onPostgres)
	file := schemasDir + "/events.go"
	old := r.other("old", map[string]string{file: r.edited(file, "//go:embed order/order_placed.v2.avsc", "//go:embed order/order_placed.v1.avsc")})
	for _, s := range services {
		for range 2 {
			p := r.add(s)
			p.program = old
			p.start()
			p.awaitReady()
		}
	}
	r.fillShelves()
	l := r.load(30)
	rounds := size(1, 5)
	for range rounds {
		for _, program := range []string{"", old} { // forth, and back
			l.reach(20)
			for _, p := range r.processes {
				p.stop()
				p.program = program
				p.start()
				p.awaitReady()
			}
		}
	}
	l.reach(20)
	l.stop()
	r.judge(check.Expect{})
	versions := map[uint32]int{}
	for _, rec := range r.raw(schemas.TopicOrders) {
		if len(rec.Value) > 5 && strings.Contains(headerOf(rec, "ce_type"), "OrderPlaced") {
			versions[uint32(rec.Value[1])<<24|uint32(rec.Value[2])<<16|uint32(rec.Value[3])<<8|uint32(rec.Value[4])]++
		}
	}
	if len(versions) != 2 {
		t.Errorf("OrderPlaced was written with %d schemas, want both versions: %v", len(versions), versions)
	}
	if n := r.answers[http.StatusInternalServerError] + r.answers[http.StatusServiceUnavailable]; n > 0 {
		t.Errorf("%d answers were 5xx: %v", n, r.answers)
	}
	r.note(2*rounds, "six processes replaced one by one each time, OrderPlaced in %d versions", len(versions))
}

// shift is what the other clock adds to the seconds since 1970: it is right for a while, then
// an hour ahead, right, and an hour behind.
const shift = `
var faultClock, _ = syscall.Getenv("KEYLINE_FAULT_CLOCK")

func faultShift(mono int64) int64 {
	if faultClock == "" {
		return 0
	}
	return [...]int64{0, 3600, 0, -3600}[mono/2_000_000_000%4]
}
`

// TestF45_ClockJumps: one service after the other has a clock that jumps an hour, forth and
// back, every two seconds. It is this program built with another time.Now, so that all of
// its code and its libraries see that clock.
func TestF45_ClockJumps(t *testing.T) {
	if run == short {
		t.Skipf("skipped: it builds Go's library anew; %s=ci go test -v runs it, make faults in full", amountVar)
	}
	onEach(t, func(t *testing.T, parts ...part) {
		r := newRig(t, parts...)
		file := filepath.Join(build.Default.GOROOT, "src/time/time.go")
		text := r.edited(file, "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += faultShift(mono)\n")
		text = strings.Replace(text, "\t\"math/bits\"\n", "\t\"math/bits\"\n\t\"syscall\"\n", 1) + shift
		jumpy := r.other("jumpy", map[string]string{file: text})
		r.startAll()
		l := r.load(30)
		rounds := size(1, 3)
		for range rounds {
			for _, p := range r.processes {
				p.stop()
				p.program, p.vars = jumpy, append(p.vars, "KEYLINE_FAULT_CLOCK=1")
				p.start()
				p.awaitReady()
				lasting(size(8*time.Second, 16*time.Second)) // once or twice through all
				p.stop()
				p.program, p.vars = "", p.vars[:len(p.vars)-1]
				p.start()
				p.awaitReady()
			}
		}
		l.stop()
		expect := check.Expect{}
		if r.on(onSQLite) {
			// There the claim of a mail in hand ends by the process's own clock: an hour later it
			// is as if that had paused for an hour.
			expect.MailRepeats = 3 * rounds * mailsAtOnce
		}
		r.judge(expect)
		ahead, behind := r.wrongTimes(schemas.TopicOrders)
		if ahead == 0 || behind == 0 {
			t.Errorf("%d events an hour ahead and %d behind: the clock has not jumped", ahead, behind)
		}
		r.note(3*rounds, "%d events on orders say that they are of an hour later, %d of an hour earlier", ahead, behind)
	}, simple, withDB)
}

// wrongTimes counts the events that say they happened long before or after this test.
func (r *rig) wrongTimes(topic string) (ahead, behind int) {
	r.Helper()
	for _, rec := range r.raw(topic) {
		at, err := time.Parse(time.RFC3339Nano, headerOf(rec, "ce_time"))
		if err != nil {
			r.Fatal(err)
		}
		switch d := at.Sub(r.begun); {
		case d > 30*time.Minute:
			ahead++
		case d < -30*time.Minute:
			behind++
		}
	}
	return ahead, behind
}
