package all_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// poison are records that are no events, each with the reason of its dead letter.
func (f *trial) poison() (records []*kgo.Record, reasons map[string]string) {
	f.Helper()
	placed := f.registered("orders-shop.order.OrderPlaced", 1)
	good := f.encode(placed, map[string]any{
		"order_id": "o", "customer_id": "c", "customer_email": "ada@example.com", "placed_at": time.Now(),
		"lines": []any{map[string]any{"sku": "s", "quantity": 1, "unit_price_cents": 1}},
	})
	frame := good[:5:5]
	values := map[string][]byte{
		"empty":            {},
		"one byte":         {0},
		"text":             []byte(`{"order_id": "o"}`),
		"bad magic":        append([]byte{1}, good[1:]...),
		"trailing bytes":   append(good[:len(good):len(good)], 0),
		"an array bomb":    append(frame, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"a long string":    append(frame, 0xfe, 0xff, 0xff, 0xff, 0x0f),
		"a negative block": append(frame, 0, 0, 0, 0x01, 0xfe, 0xff, 0xff, 0xff, 0x0f),
		"a huge count":     append(frame, 2, 'o', 2, 'c', 2, 'm', 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	}
	for i := range size(20, 200) {
		random := make([]byte, 1+f.chance.IntN(300))
		for i := range random {
			random[i] = byte(f.chance.Uint32())
		}
		values["a framed noise "+itoa(int64(i))] = append(frame, random...)
		random = bytes.Clone(random)
		random[0] = 7 // no schema's frame
		values["noise "+itoa(int64(i))] = random
	}
	for cut := 5; cut < len(good); cut++ {
		values["cut to "+itoa(int64(cut))] = good[:cut]
	}
	reasons = map[string]string{}
	add := func(name string, value []byte, reason string) {
		key := name + " " + uuid.NewString()
		reasons[key] = reason
		records = append(records, &kgo.Record{Topic: schemas.TopicOrders, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: "who", Value: []byte(name)}}})
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		add(name, values[name], "undecodable")
	}
	add("no value", nil, "undecodable")
	add("unknown schema", append(binary.BigEndian.AppendUint32([]byte{0}, 4711), good[5:]...), "unknown-schema")
	f.chance.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records, reasons
}

// Bytes that are no events end as dead letters, untouched, one each in each group; they hold up
// nobody, and cost no more memory than promised. Not parallel: it counts the memory.
func TestF35_poison_is_set_aside_and_holds_up_nobody(t *testing.T) {
	f := openTrial(t, nil)
	records, reasons := f.poison()
	records = append(records, &kgo.Record{Topic: schemas.TopicOrders, Value: []byte("no key")})
	reasons[""] = "undecodable"
	groups := []string{"inventory", "email"}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	allowed, slowest := 0, time.Duration(0)
	for at := 0; at < len(records); {
		n := min(1+f.chance.IntN(20), len(records)-at)
		f.write(records[at : at+n]...)
		for _, r := range records[at : at+n] {
			allowed += len(groups) * (64*len(r.Value) + 1<<20)
		}
		at += n
		begun := time.Now()
		f.mails(f.order(line{f.articles[1], 1, 450}).OrderID, 1) // no poison is waited for
		slowest = max(slowest, time.Since(begun))
	}
	f.quiet()
	runtime.ReadMemStats(&after)
	spent := int(after.TotalAlloc - before.TotalAlloc)
	t.Logf("%d poisoned records, %d MiB allocated in all, the slowest neighbour took %v", len(records), spent>>20, slowest)
	if spent > allowed {
		t.Errorf("%d poisoned records cost %d MiB, want %d at most", len(records), spent>>20, allowed>>20)
	}
	if slowest > 5*time.Second {
		t.Errorf("a neighbour took %v", slowest)
	}

	var dead []check.Waiting
	for _, service := range groups {
		letters := map[string][]*kgo.Record{}
		for _, letter := range f.deadLetters(service) {
			letters[string(letter.Key)] = append(letters[string(letter.Key)], letter)
			f.injected++
		}
		for _, r := range records {
			f.wantLetter(service, r, letters[string(r.Key)], reasons[string(r.Key)])
			if key := string(r.Key); key != "" {
				dead = append(dead, check.Waiting{Group: service, Key: key, Reason: reasons[key]})
			}
		}
		for _, w := range f.waits(service, "") {
			if w.Reason == "undecodable" && w.State != "set aside" {
				t.Errorf("%q is %s, want set aside: it holds nothing", w.Key, w.State)
			}
		}
	}
	for _, service := range groups { // that of the record without a key; an empty one matches any
		dead = append(dead, check.Waiting{Group: service, Reason: "undecodable"})
	}
	f.judge(check.Expect{Dead: dead, Foreign: true})
}

// wantLetter wants one copy of a record, bytes untouched.
func (f *trial) wantLetter(service string, r *kgo.Record, letters []*kgo.Record, reason string) {
	f.Helper()
	if len(letters) != 1 {
		f.Errorf("%s has %d dead letters for %q, want 1", service, len(letters), r.Key)
		return
	}
	letter := letters[0]
	if !bytes.Equal(letter.Value, r.Value) || header(letter, "who") != header(r, "who") {
		f.Errorf("%s: the copy of %q is %x, want %x", service, r.Key, letter.Value, r.Value)
	}
	if (letter.Value == nil) != (r.Value == nil) {
		f.Errorf("%s: the copy of %q has no value: %v, want %v", service, r.Key, letter.Value == nil, r.Value == nil)
	}
	if got := header(letter, "dlt-reason"); got != reason {
		f.Errorf("%s: %q is %s because %s, want %s", service, r.Key, got, header(letter, "dlt-error"), reason)
	}
}
