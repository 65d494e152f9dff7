package all_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a shop has done is kept over a stop where DATA says so, with what was still to do.
func TestData(t *testing.T) {
	parallel(t)
	data := t.TempDir()
	s := prepare(t, nil)
	s.cfg.Data = data
	s.start()
	sku := newSKU("tea")
	orders := s.business(sku, 12)
	before := s.state(sku, orders)
	s.receive(sku, 1)
	release := s.hold("inventory")
	late := s.place(line{sku, 1, 450})
	refused, _ := s.refuse(late.OrderID, tryLater)
	release()
	s.await(late.OrderID, "confirmed")
	eventually(t, "a refused mail", func() bool { return refused() > 0 })

	left := s.stock(sku) // a cancelled order's pieces come back, after others were refused or before
	s.stop()
	s.start()
	if mail := s.mails(late.OrderID, 1)[0]; mail.Subject != confirmedMail {
		t.Errorf("what waited has become the mail %q", mail.Subject)
	}
	s.quiet()
	if mails := s.Mailbox().Messages(); len(mails) != 1 {
		t.Errorf("%d mails after the restart, want the one that waited", len(mails))
	}
	for _, service := range services {
		if again := s.metric(service, "inbox_duplicates_total"); again > 0 {
			t.Errorf("%s was handed %v records again: the stop was not clean", service, again)
		}
	}
	after := s.state(sku, orders)
	if diff := cmp.Diff(before.Orders, after.Orders); diff != "" {
		t.Errorf("orders after the restart (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before.Ledgers, after.Ledgers); diff != "" {
		t.Errorf("mails after the restart (-before +after):\n%s", diff)
	}
	for id, n := range before.Facts {
		if after.Facts[id] != n {
			t.Errorf("%s is on its topic %d times, %d before", id, after.Facts[id], n)
		}
	}
	if got := s.stock(sku); got != left {
		t.Errorf("stock after the restart %+v, before %+v", got, left)
	}
	s.await(s.place(line{sku, int(left.Available) + 1, 450}).OrderID, "rejected")
}

// Offsets and schema IDs mean nothing elsewhere, so kept data are refused a broker that they
// were not made with.
func TestData_elsewhere(t *testing.T) {
	t.Parallel() // its parts are embedded ones, whatever the others' are
	for _, tt := range []struct{ name, first, then string }{
		{"made with the embedded broker, used with a real one", "", "127.0.0.1:1"},
		{"made with a real broker, used with the embedded one", "beside", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			if tt.first == "beside" {
				tt.first = broker(t, 0).Addr()
			}
			s := prepare(t, map[string]string{"KAFKA_BROKERS": tt.first, "DATABASE_URL": "", "SCHEMA_REGISTRY_URL": ""})
			s.cfg.Data = data
			s.start()
			s.stop()
			s.cfg.Environ["KAFKA_BROKERS"] = tt.then
			_, ended := s.run()
			err := <-ended
			s.stopped = nil
			if err == nil || !strings.Contains(err.Error(), "DATA") || !strings.Contains(err.Error(), "embedded") || !strings.Contains(err.Error(), "another folder") {
				t.Errorf("the shop ended with %v, want an error that names DATA, both brokers, and what to do", err)
			}
		})
	}
}
