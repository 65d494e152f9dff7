package codec

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
)

// json returns a datum as JSON. With mask, fields tagged in the schema and those named in
// masked read "***". What is ten times longer than the datum, beside 128 KiB, is not shown:
// names may be long where values are short.
func (n *node) json(datum []byte, mask bool, masked map[string]bool) ([]byte, error) {
	p := printer{
		walker: walker{src: datum},
		out:    make([]byte, 0, 4*len(datum)+256),
		limit:  10*len(datum) + 128<<10,
		mask:   mask,
		masked: masked,
	}
	p.value(n)
	return p.out, p.end()
}

type printer struct {
	walker
	out    []byte
	limit  int // of out, in bytes
	mask   bool
	masked map[string]bool
}

func (p *printer) value(n *node) {
	if len(p.out) > p.limit {
		p.fail(errors.New("too long to show"))
	}
	if n.kind < kindArray {
		p.scalar(n)
		return
	}
	if !p.enter() {
		return
	}
	switch n.kind {
	case kindRecord:
		p.record(n)
	case kindUnion:
		if i := p.index(len(n.branches)); p.err == nil {
			p.value(n.branches[i])
		}
	case kindArray:
		p.items(n, '[', ']')
	case kindMap:
		p.items(n, '{', '}')
	}
	p.depth--
}

func (p *printer) record(n *node) {
	p.out = append(p.out, '{')
	for i, f := range n.fields {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		p.out = append(p.out, '"')
		p.out = append(p.out, f.name...) // names in Avro need no escapes
		p.out = append(p.out, `":`...)
		start := len(p.out)
		p.value(f.node)
		if p.mask && (f.pii || p.masked[f.name]) {
			p.out = append(p.out[:start], `"***"`...)
		}
	}
	p.out = append(p.out, '}')
}

func (p *printer) items(n *node, open, end byte) {
	p.out = append(p.out, open)
	for count := p.block(); count > 0; count = p.block() {
		for ; count > 0 && p.err == nil; count-- {
			if p.out[len(p.out)-1] != open {
				p.out = append(p.out, ',')
			}
			if n.kind == kindMap {
				p.string(p.bytes())
				p.out = append(p.out, ':')
			}
			p.value(n.element)
		}
	}
	p.out = append(p.out, end)
}

func (p *printer) scalar(n *node) {
	switch n.kind {
	case kindNull:
		p.out = append(p.out, "null"...)
	case kindBoolean:
		b := p.take(1)
		p.out = strconv.AppendBool(p.out, len(b) == 1 && b[0] != 0)
	case kindInt, kindLong:
		p.long64(p.long(), n.logical)
	case kindFloat:
		if b := p.take(4); b != nil {
			p.float(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
		}
	case kindDouble:
		if b := p.take(8); b != nil {
			p.float(math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
		}
	case kindString:
		p.string(p.bytes())
	case kindBytes:
		p.base64(p.bytes())
	case kindFixed:
		p.base64(p.take(n.size))
	case kindEnum:
		if i := p.index(len(n.symbols)); p.err == nil {
			p.string([]byte(n.symbols[i]))
		}
	}
}

func (p *printer) long64(v int64, logical string) {
	var t time.Time
	switch logical {
	case "timestamp-millis":
		t = time.UnixMilli(v)
	case "timestamp-micros":
		t = time.UnixMicro(v)
	case "timestamp-nanos":
		t = time.Unix(0, v)
	default:
		p.out = strconv.AppendInt(p.out, v, 10)
		return
	}
	p.out = append(t.UTC().AppendFormat(append(p.out, '"'), time.RFC3339Nano), '"')
}

func (p *printer) base64(b []byte) {
	p.out = append(base64.StdEncoding.AppendEncode(append(p.out, '"'), b), '"')
}

// float prints what JSON has no number for as text.
func (p *printer) float(f float64, bits int) {
	text := strconv.AppendFloat(nil, f, 'g', -1, bits)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		p.string(text)
		return
	}
	p.out = append(p.out, text...)
}

// string prints text; what is not UTF-8 in it becomes U+FFFD.
func (p *printer) string(text []byte) {
	special := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if bytes.IndexFunc(text, special) < 0 {
		p.out = append(append(append(p.out, '"'), text...), '"')
		return
	}
	quoted, err := json.Marshal(string(text))
	if err != nil {
		p.fail(err)
	}
	p.out = append(p.out, quoted...)
}
