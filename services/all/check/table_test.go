package check_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"example.com/keyline/services/all/check"
)

func TestWriteRow(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "README.md")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("keeps the text around, sorts by number, and replaces the row of the same fault and parts", func(t *testing.T) {
		write("above\n<!-- made by make faults: begin -->\n<!-- made by make faults: end -->\nbelow\n")
		for _, r := range []check.Row{
			{Fault: "F12", Parts: "K S", Rounds: 3, Orders: 4, Seen: "old", Lost: "nothing"},
			{Fault: "F2", Parts: "R P", Rounds: 5, Orders: 6, Seen: "x", Lost: "nothing"},
			{Fault: "F12", Parts: "K S", Rounds: 7, Orders: 8, Seen: "new", Lost: "**failed**"},
		} {
			if err := check.WriteRow(file, 9, r); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"above\n", "below\n", "Seed 9, " + runtime.Version(), "| F2 | R P | 5 | 6 | x | nothing |\n| F12 | K S | 7 | 8 | new | **failed** |\n"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("the file has no %q:\n%s", want, text)
			}
		}
		if strings.Contains(string(text), "old") {
			t.Errorf("the old row is still there:\n%s", text)
		}
	})
	t.Run("a file without a place for the table is an error that names it", func(t *testing.T) {
		write("nothing here")
		if err := check.WriteRow(file, 1, check.Row{Fault: "F1"}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("error %v, want one that names the file", err)
		}
	})
}
