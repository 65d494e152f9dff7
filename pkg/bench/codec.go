package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/google/go-cmp/cmp"
	hamba "github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
	twmb "github.com/twmb/avro"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
)

// frame is what the registry's wire format puts in front of the datum. Every side writes and
// skips it.
const frame = 5

// avro is the same two versions in every library.
type avro struct {
	ours *codec.Codec
	ctx  context.Context

	twmb, twmbOld, twmbEvolved    *twmb.Schema
	hamba, hambaOld, hambaEvolved hamba.Schema
	goavro, goavroOld             *goavro.Codec

	id, oldID []byte // in frames
	order     schemas.OrderPlaced
	native    map[string]any // the order as goavro's users have it
	now, old  []byte         // the order framed, as version 2 and as version 1
	buf       []byte
}

func codecWorks(ctx context.Context, r *rig) ([]work, error) {
	versions := schemas.Subjects()[0].Versions
	if len(versions) != 2 {
		return nil, fmt.Errorf("OrderPlaced has %d versions, B1 is about the first two", len(versions))
	}
	a := &avro{ours: r.codec, ctx: ctx, buf: make([]byte, 0, 512), order: newOrder(rand.New(rand.NewPCG(1, 2)), 1)}
	if err := a.parse(versions[0], versions[1]); err != nil {
		return nil, err
	}
	if err := a.verify(); err != nil {
		return nil, err
	}
	return []work{
		{name: "B1 encode, buffer used again", sides: a.appends()},
		{name: "B1 encode, new slice", sides: a.encodes()},
		{name: "B1 decode", sides: a.decodes()},
		{name: "B1 decode v1 as v2", sides: a.evolves()},
		{name: "B1 decode v1 as v2, own price", sides: []side{
			a.ourDecode("keyline", "", a.old), a.ourDecode("keyline v2 as v2", ">= 0.77 (1.3x the time)", a.now)}},
	}, nil
}

const (
	gateSafe       = ">= 1"
	gateEncode     = ">= 1, moonshot 3.5"
	moonshotEncode = "moonshot 6, 35 ns, 0 allocs"
	moonshotDecode = "moonshot 2, 140 ns"
)

// appends encode into a buffer that is there already.
func (a *avro) appends() []side {
	w := hamba.NewWriter(nil, 512)
	return []side{
		each("keyline", "", func(int) (err error) {
			a.buf, err = a.ours.AppendEncode(a.buf[:0], &a.order)
			return err
		}),
		each("hamba", moonshotEncode, func(int) error {
			w.Reset(nil)
			_, _ = w.Write(a.id)
			w.WriteVal(a.hamba, &a.order)
			a.buf = w.Buffer()
			return w.Error
		}),
		each("twmb", gateEncode, func(int) (err error) {
			a.buf, err = a.twmb.AppendEncode(append(a.buf[:0], a.id...), &a.order)
			return err
		}),
		each("goavro", gateSafe, func(int) (err error) {
			a.buf, err = a.goavro.BinaryFromNative(append(a.buf[:0], a.id...), a.native)
			return err
		}),
	}
}

// encodes are what an outbox does: the event comes as a value, the bytes are kept.
func (a *avro) encodes() []side {
	return []side{
		each("keyline", "", func(int) (err error) {
			a.buf, err = a.ours.Encode(a.order)
			return err
		}),
		each("hamba", moonshotEncode, func(int) (err error) {
			a.buf, err = hamba.Marshal(a.hamba, a.order) // without the frame: it cannot put one in front
			return err
		}),
		each("twmb", gateEncode, func(int) (err error) {
			a.buf, err = a.twmb.AppendEncode(append(make([]byte, 0, 256), a.id...), a.order)
			return err
		}),
		each("goavro", gateSafe, func(int) (err error) {
			a.buf, err = a.goavro.BinaryFromNative(append(make([]byte, 0, 256), a.id...), a.native)
			return err
		}),
	}
}

// decodes make a struct; goavro makes a map, which is half of the work.
func (a *avro) decodes() []side {
	return []side{
		a.ourDecode("keyline", "", a.now),
		a.hambaDecode(a.hamba, a.now),
		a.twmbDecode(a.twmb, a.now),
		a.goavroDecode("goavro", a.goavro, a.now),
	}
}

// evolves read version 1 as version 2; goavro knows of no second version.
func (a *avro) evolves() []side {
	return []side{
		a.ourDecode("keyline", "", a.old),
		a.hambaDecode(a.hambaEvolved, a.old),
		a.twmbDecode(a.twmbEvolved, a.old),
		a.goavroDecode("goavro v1 as v1", a.goavroOld, a.old),
	}
}

func (a *avro) ourDecode(name, gate string, value []byte) side {
	return each(name, gate, func(int) error {
		_, err := codec.Decode[schemas.OrderPlaced](a.ctx, a.ours, value)
		return err
	})
}

func (a *avro) hambaDecode(s hamba.Schema, value []byte) side {
	return each("hamba", moonshotDecode, func(int) error {
		var o schemas.OrderPlaced
		return hamba.Unmarshal(s, value[frame:], &o)
	})
}

func (a *avro) twmbDecode(s *twmb.Schema, value []byte) side {
	return each("twmb", gateSafe, func(int) error {
		var o schemas.OrderPlaced
		_, err := s.Decode(value[frame:], &o)
		return err
	})
}

func (a *avro) goavroDecode(name string, c *goavro.Codec, value []byte) side {
	return each(name, gateSafe, func(int) error {
		_, _, err := c.NativeFromBinary(value[frame:])
		return err
	})
}

func (a *avro) parse(old, now string) (err error) {
	if a.twmbOld, err = twmb.Parse(old); err != nil {
		return err
	}
	if a.twmb, err = twmb.Parse(now); err != nil {
		return err
	}
	if a.twmbEvolved, err = twmb.Resolve(a.twmbOld, a.twmb); err != nil {
		return err
	}
	if a.hambaOld, err = hamba.ParseWithCache(old, "", new(hamba.SchemaCache)); err != nil {
		return err
	}
	if a.hamba, err = hamba.ParseWithCache(now, "", new(hamba.SchemaCache)); err != nil {
		return err
	}
	if a.hambaEvolved, err = hamba.NewSchemaCompatibility().Resolve(a.hamba, a.hambaOld); err != nil {
		return err
	}
	if a.goavroOld, err = goavro.NewCodec(old); err != nil {
		return err
	}
	if a.goavro, err = goavro.NewCodec(now); err != nil {
		return err
	}
	if a.oldID, err = framing(old); err != nil {
		return err
	}
	a.id, err = framing(now)
	return err
}

// framing is the frame of values that are written by a schema.
func framing(schema string) ([]byte, error) {
	id, err := embedded.SchemaID(schema)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), nil
}

// verify makes the values, and checks that what one side writes is understood by all.
func (a *avro) verify() (err error) {
	lines := make([]any, len(a.order.Lines))
	for i, l := range a.order.Lines {
		lines[i] = map[string]any{"sku": l.SKU, "quantity": l.Quantity, "unit_price_cents": l.UnitPriceCents}
	}
	a.native = map[string]any{
		"order_id": a.order.OrderID, "customer_id": a.order.CustomerID, "customer_email": a.order.CustomerEmail,
		"lines": lines, "placed_at": a.order.PlacedAt, "currency": a.order.Currency,
	}
	if a.old, err = a.twmbOld.AppendEncode(bytes.Clone(a.oldID), &a.order); err != nil {
		return err
	}
	if a.now, err = a.ours.Encode(a.order); err != nil {
		return err
	}
	for _, s := range a.appends() {
		if err := s.run(a.ctx, 1, new(watch)); err != nil {
			return fmt.Errorf("%s encodes: %w", s.name, err)
		}
		if err := a.understood(a.buf, a.hamba, a.twmb); err != nil {
			return fmt.Errorf("the datum of %s: %w", s.name, err)
		}
		native, _, err := a.goavro.NativeFromBinary(a.buf[frame:])
		if err != nil {
			return fmt.Errorf("goavro reads the datum of %s: %w", s.name, err)
		}
		if got, want := fmt.Sprint(native), fmt.Sprint(a.native); got != want {
			return fmt.Errorf("goavro reads the datum of %s as %s, not %s", s.name, got, want)
		}
	}
	a.buf = make([]byte, 0, 512)
	if err := a.understood(a.old, a.hambaEvolved, a.twmbEvolved); err != nil {
		return fmt.Errorf("version 1: %w", err)
	}
	return nil
}

// understood checks that a value is the order to every library that makes structs.
func (a *avro) understood(value []byte, h hamba.Schema, t *twmb.Schema) error {
	ours, err := codec.Decode[schemas.OrderPlaced](a.ctx, a.ours, value)
	if err != nil {
		return err
	}
	var byHamba, byTwmb schemas.OrderPlaced
	if err := hamba.Unmarshal(h, value[frame:], &byHamba); err != nil {
		return fmt.Errorf("hamba: %w", err)
	}
	if _, err := t.Decode(value[frame:], &byTwmb); err != nil {
		return fmt.Errorf("twmb: %w", err)
	}
	for name, got := range map[string]schemas.OrderPlaced{"keyline": ours, "hamba": byHamba, "twmb": byTwmb} {
		if diff := cmp.Diff(a.order, got); diff != "" {
			return fmt.Errorf("%s reads another order (-want +got):\n%s", name, diff)
		}
	}
	return nil
}
