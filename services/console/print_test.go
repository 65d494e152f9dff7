package console

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/schemas"
)

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 400 * time.Millisecond: "0s", 12 * time.Second: "12s", 192 * time.Second: "3m12s",
		2*time.Hour + 5*time.Minute + 59*time.Second: "2h05m", 76 * time.Hour: "3d04h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v): got %s, want %s", d, got, want)
		}
	}
}

func TestSafe(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain ä €":              "plain ä €",
		"a\nb\tc":                "a b c",
		"\x1b[2J":                `\u001b[2J`,
		"\u009b31m":              `\u009b31m`,
		"a\u202eb":               `a\u202eb`,
		"cut \xff":               `cut \xff`,
		"real \ufffd":            "real \ufffd",
		strings.Repeat("ä", 100): strings.Repeat("ä", 40) + "…",
	} {
		if got := safe(text, 40); got != want {
			t.Errorf("safe(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"o-1": "o-1", "": "''", "a b": "'a b'", "$(rm)": "'$(rm)'", "it's": `'it'\''s'`, "\x1b'\\": `$'\x1b\'\\'`, "\xff": `$'\xff'`,
	} {
		if got := quoted(text); got != want {
			t.Errorf("quoted(%q): got %s, want %s", text, got, want)
		}
	}
}

func TestParseMoment(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"2026-03-01T08:00:00Z": time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), "2026-03-01T08:00": time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC),
		"2026-03-01T08:00:00+02:00": time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC), "beginning": {},
	} {
		if got, err := ParseMoment(text); err != nil || !got.Time.Equal(want) || got.End {
			t.Errorf("ParseMoment(%q): got %+v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "3d": 72 * time.Hour} {
		if got, err := ParseMoment(text); err != nil || (time.Since(got.Time)-want).Abs() > 2*time.Hour {
			t.Errorf("ParseMoment(%q): got %+v, %v, want %v ago", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1h", "soon", "-3d"} {
		if got, err := ParseMoment(text); err == nil {
			t.Errorf("ParseMoment(%q): got %+v, want an error", text, got)
		}
	}
}

// Records of several partitions come in the order of their times, those of one in their own.
func TestMerge(t *testing.T) {
	t.Parallel()
	at := func(partition int32, offset, second int64) Record {
		return Record{Topic: "t", Partition: partition, Offset: offset, written: time.Unix(second, 0)}
	}
	var m merge
	for _, r := range []Record{at(0, 0, 10), at(0, 1, 5), at(0, 2, 30), at(1, 0, 1), at(1, 1, 20)} {
		m.add(r)
	}
	var got []string
	m.flush(func(r Record, _ error) bool {
		got = append(got, position(r.Topic, r.Partition, r.Offset))
		return true
	})
	want := []string{"t/1@0", "t/0@0", "t/0@1", "t/1@1", "t/0@2"}
	if diff := cmp.Diff(want, got); diff != "" || m.held != 0 {
		t.Errorf("order (-want +got), %d held:\n%s", m.held, diff)
	}
}

func TestDeadLetterTopic(t *testing.T) {
	t.Parallel()
	groups := map[string]string{"email": "shop2-email"}
	for name, want := range map[string]string{
		"orders": "orders", "orders.email.dlt": "orders.shop2-email.dlt", "orders.inventory.dlt": "orders.inventory.dlt", "x.dlt": "x.dlt",
		"orders.v2": "orders.v2", "orders.v2.email.dlt": "orders.v2.shop2-email.dlt",
	} {
		if got := deadLetterTopic(name, groups); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// Every event is known here: the fields of one that is not would be shown unmasked.
func TestPayloads(t *testing.T) {
	t.Parallel()
	var have []string
	for _, p := range payloads() {
		have = append(have, codec.SubjectName(p))
	}
	for _, s := range schemas.Subjects() {
		if !slices.Contains(have, s.Name) {
			t.Errorf("%s is missing in payloads() of tail.go", s.Name)
		}
	}
}
