package event_test

import (
	"testing"

	"example.com/keyline/pkg/event"
)

func TestKeyText_loses_no_byte(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"o-1": "o-1", "": "", "ä": "ä", `"o-1"`: `"o-1"`, "o\xff\n": `"o\xff\n"`, "\x00": "\x00", `"\xff`: `"\xff`, "\"\xff": `"\"\xff"`,
	} {
		got := event.KeyText([]byte(key))
		if got != want {
			t.Errorf("KeyText(%q): got %s, want %s", key, got, want)
		}
		if back := string(event.ParseKey(got)); back != key {
			t.Errorf("ParseKey(%s): got %q, want %q", got, back, key)
		}
	}
}
