package codec_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/pkg/codec"
)

func TestCodec_Encode(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placed{}, settledEvent{})

	t.Run("what is encoded decodes to the same", func(t *testing.T) {
		t.Parallel()
		got, err := codec.Decode[placed](t.Context(), c, encode(t, c, now()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, now()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a pointer encodes like the value", func(t *testing.T) {
		t.Parallel()
		p := now()
		if diff := cmp.Diff(encode(t, c, &p), encode(t, c, p)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("another library reads what is framed by the schema's ID", func(t *testing.T) {
		t.Parallel()
		value := encode(t, c, now())
		if diff := cmp.Diff(value[:5], frame(idV2)); diff != "" {
			t.Fatal(diff)
		}
		other, err := goavro.NewCodec(placedV2)
		if err != nil {
			t.Fatal(err)
		}
		native, rest, err := other.NativeFromBinary(value[5:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("rest %x, error %v", rest, err)
		}
		if got := native.(map[string]any)["currency"]; got != "CHF" {
			t.Errorf("currency is %v, want CHF", got)
		}
	})
	t.Run("appending leaves what was there and allocates nothing", func(t *testing.T) {
		t.Parallel()
		dst := append(make([]byte, 0, 1024), "head"...)
		p := now()
		out, err := c.AppendEncode(dst, &p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(out, append([]byte("head"), encode(t, c, p)...)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an enum without a symbol is refused", func(t *testing.T) {
		t.Parallel()
		p := now()
		p.Reason = ""
		if _, err := c.Encode(p); err == nil || !strings.Contains(err.Error(), "reason") {
			t.Errorf("error %v, want one that names the field reason", err)
		}
	})
	t.Run("what would be too long to decode is refused", func(t *testing.T) {
		t.Parallel()
		p := now()
		p.ID = strings.Repeat("x", codec.MaxSize)
		if _, err := c.Encode(p); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("error %v, want one about the limit", err)
		}
	})
	t.Run("a payload that New was not given is refused", func(t *testing.T) {
		t.Parallel()
		for _, p := range []interface {
			Schema() string
			Topic() string
			Key() string
		}{then(), nil} {
			if _, err := c.Encode(p); err == nil {
				t.Errorf("%T: no error", p)
			}
		}
	})
	t.Run("nothing is encoded before Verify", func(t *testing.T) {
		t.Parallel()
		c, err := codec.New(codec.Config{URL: "http://registry.invalid"}, placed{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Encode(now()); !errors.Is(err, codec.ErrNotVerified) {
			t.Errorf("error %v, want ErrNotVerified", err)
		}
	})
}

func TestCodec_AppendEncode_allocations(t *testing.T) { // not parallel: it counts
	c := newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placed{})
	p, dst := now(), make([]byte, 0, 1024)
	got := testing.AllocsPerRun(100, func() {
		if _, err := c.AppendEncode(dst, &p); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	today := newCodec(t, codec.Config{URL: r.URL()}, placed{}, settledEvent{})
	before := newCodec(t, codec.Config{URL: r.URL()}, placedThen{})

	t.Run("today's reader reads version 1, with defaults for what came later", func(t *testing.T) {
		t.Parallel()
		got, err := codec.Decode[placed](t.Context(), today, encode(t, before, then()))
		if err != nil {
			t.Fatal(err)
		}
		want := now()
		want.Currency, want.Note, want.Reason = "EUR", nil, "unknown"
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("yesterday's reader reads version 2, without what it does not know", func(t *testing.T) {
		t.Parallel()
		got, err := codec.Decode[placedThen](t.Context(), before, encode(t, today, now()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, then()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("times are in UTC", func(t *testing.T) {
		t.Parallel()
		p := now()
		p.PlacedAt = p.PlacedAt.In(time.FixedZone("", 3600))
		got, err := codec.Decode[placed](t.Context(), today, encode(t, today, p))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.PlacedAt, then().PlacedAt); diff != "" || got.PlacedAt.Location() != time.UTC {
			t.Error(got.PlacedAt)
		}
	})
	t.Run("a foreign producer's own version of the event is read", func(t *testing.T) {
		t.Parallel()
		foreign := strings.Replace(placedV1, `"fields": [`, `"fields": [{"name": "shop", "type": "string", "default": ""},`, 1)
		r.SeedSchema("foreign", 1, 50, sr.Schema{Schema: foreign})
		value := append(frame(50, 2, 's'), encode(t, before, then())[5:]...)
		got, err := codec.Decode[placed](t.Context(), today, value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, now(), cmpopts.IgnoreFields(placed{}, "Currency", "Note", "Reason")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an event of another type is an error of no class", func(t *testing.T) {
		t.Parallel()
		_, err := codec.Decode[placed](t.Context(), today, encode(t, today, settledEvent{"o-1"}))
		if err == nil || !strings.Contains(err.Error(), "test.Settled") || !strings.Contains(err.Error(), "test.Placed") || class(err) != nil {
			t.Errorf("error %v, want a plain one with both names", err)
		}
	})
	t.Run("the same short name in another namespace is another type", func(t *testing.T) {
		t.Parallel()
		r.SeedSchema("elsewhere", 1, 51, sr.Schema{Schema: strings.Replace(placedV2, `"test"`, `"elsewhere"`, 1)})
		_, err := codec.Decode[placed](t.Context(), today, append(frame(51), encode(t, today, now())[5:]...))
		if err == nil || !strings.Contains(err.Error(), "elsewhere.Placed") || class(err) != nil {
			t.Errorf("error %v, want a plain one with both names", err)
		}
	})
	t.Run("a payload that New was not given is refused", func(t *testing.T) {
		t.Parallel()
		_, err := codec.Decode[placedThen](t.Context(), today, encode(t, today, now()))
		if err == nil || class(err) != nil {
			t.Errorf("error %v, want a plain one", err)
		}
	})
	t.Run("a schema that cannot be resolved is incompatible, but its type is known", func(t *testing.T) {
		t.Parallel()
		r.SeedSchema("broken", 1, 52, sr.Schema{Schema: strings.Replace(placedV1, `{"name": "email", "type": "string", "pii": true},`, "", 1)})
		if typ, err := today.Type(t.Context(), frame(52)); typ != "test.Placed" || err != nil {
			t.Errorf("type %q, error %v", typ, err)
		}
		if _, err := codec.Decode[placed](t.Context(), today, frame(52)); class(err) != codec.ErrIncompatible {
			t.Errorf("error %v, want ErrIncompatible", err)
		}
	})
}

// class is the sentinel in err, nil if there is none.
func class(err error) error {
	for _, class := range []error{
		codec.ErrUndecodable, codec.ErrUnknownSchema, codec.ErrIncompatible, codec.ErrUnavailable, codec.ErrNotVerified,
	} {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

func TestCodec_Type(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c := newCodec(t, codec.Config{URL: r.URL()}, placed{})
	r.SeedSchema("text", 1, 60, sr.Schema{Schema: `"string"`})
	r.SeedSchema("json", 1, 61, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	r.SeedSchema("refers", 1, 62, sr.Schema{Schema: settled,
		References: []sr.SchemaReference{{Name: "test.Settled", Subject: "orders-test.Settled", Version: 1}}})

	for _, tt := range []struct {
		name  string
		value []byte
		typ   string
		err   error
	}{
		{"the writer's schema decides", frame(idV1), "test.Placed", nil},
		{"an event that the service does not know has a type too", frame(idSettled), "test.Settled", nil},
		{"no value", nil, "", codec.ErrUndecodable},
		{"half a schema ID", []byte{0, 0, 0, 0}, "", codec.ErrUndecodable},
		{"another first byte", []byte{1, 0, 0, 0, idV1}, "", codec.ErrUndecodable},
		{"an ID that no registry has", frame(1<<31, 0), "", codec.ErrUndecodable},
		{"too many bytes", append(frame(idV1), make([]byte, codec.MaxSize)...), "", codec.ErrUndecodable},
		{"an ID that this registry does not have", frame(99), "", codec.ErrUnknownSchema},
		{"a schema that is no record", frame(60), "", codec.ErrIncompatible},
		{"a schema that is not Avro", frame(61), "", codec.ErrIncompatible},
		{"a schema in parts", frame(62), "", codec.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			typ, err := c.Type(t.Context(), tt.value)
			if typ != tt.typ || !errors.Is(err, tt.err) {
				t.Errorf("type %q, error %v, want %q, %v", typ, err, tt.typ, tt.err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		placedV1:                                  "test.Placed",
		`{"type": "record", "name": "a.b.C"}`:     "a.b.C",
		`{"name": "a.C", "namespace": "ignored"}`: "a.C",
		`{"name": "C"}`:                           "C",
		`{"Name": "C"}`:                           "",
		`{"namespace": "a"}`:                      "",
		`"string"`:                                "",
		`not JSON`:                                "",
	} {
		if got := codec.FullName(schema); got != want {
			t.Errorf("FullName(%s) = %q, want %q", schema, got, want)
		}
	}
	if got, want := codec.SubjectName(placed{}), "orders-test.Placed"; got != want {
		t.Errorf("SubjectName = %q, want %q", got, want)
	}
}
