package inbox

import (
	"testing"
	"time"
)

// The README says how long an event is tried, for the default of Attempts and for email's.
func TestBackoff_of_all_attempts_takes_as_long_as_the_README_says(t *testing.T) {
	t.Parallel()
	in := &Inbox{cfg: Config{MaxBackoff: time.Minute}}
	for attempts, want := range map[int][2]time.Duration{10: {25 * time.Second, time.Minute}, 100: {45 * time.Minute, 91 * time.Minute}} {
		for range 100 {
			var all time.Duration
			for n := 1; n < attempts; n++ {
				all += in.backoff(n)
			}
			if all < want[0] || all > want[1] {
				t.Fatalf("the pauses between %d attempts are %v, want %v to %v", attempts, all, want[0], want[1])
			}
		}
	}
}
