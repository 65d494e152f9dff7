package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxDepth is how deep arrays, maps, unions and records may lie in each other in a value; it
// is twmb's limit too.
const maxDepth = 1000

var errCut = errors.New("cut short")

// walker reads a datum by the tree of its schema. After an error it reads zeros.
type walker struct {
	src   []byte
	err   error
	depth int
}

// scan walks a whole datum and adds up what decoding it will allocate for slices whose
// elements take at most element bytes each.
func (n *node) scan(datum []byte, element int) error {
	s := scanner{walker: walker{src: datum}, element: element, budget: sliceBudget(len(datum))}
	s.value(n)
	return s.end()
}

// fault returns what is wrong with a datum that could not be decoded.
func (n *node) fault(datum []byte) error {
	if err := n.scan(datum, 0); err != nil {
		return err
	}
	return errors.New("a number does not fit its type")
}

type scanner struct {
	walker
	element int
	budget  int
}

func (s *scanner) value(n *node) {
	if n.kind < kindArray {
		s.scalar(n)
		return
	}
	if !s.enter() {
		return
	}
	switch n.kind {
	case kindRecord:
		for i := range n.fields {
			s.value(n.fields[i].node)
		}
	case kindUnion:
		if i := s.index(len(n.branches)); s.err == nil {
			s.value(n.branches[i])
		}
	default:
		s.items(n)
	}
	s.depth--
}

func (s *scanner) items(n *node) {
	items := 0
	for count := s.block(); count > 0; count = s.block() {
		items += count
		s.budget -= items * s.element // with each block the decoder copies all items so far
		if s.budget < 0 {
			s.fail(errors.New("its arrays would take too much memory"))
		}
		for ; count > 0 && s.err == nil; count-- {
			if n.kind == kindMap {
				s.bytes()
			}
			s.value(n.element)
		}
	}
}

// enter begins a value that holds others, unless it lies too deep or something is wrong.
func (w *walker) enter() bool {
	if w.depth++; w.depth > maxDepth {
		w.fail(fmt.Errorf("nested deeper than %d", maxDepth))
	}
	return w.err == nil
}

// block reads the number of items in the next block of an array or a map; 0 is the end.
func (w *walker) block() int {
	count := w.long()
	if count < 0 {
		w.long() // the block's size in bytes, for those who skip it
		count = -count
	}
	// Every item takes at least one byte; the least integer stays negative.
	if count < 0 || count > int64(len(w.src)) {
		w.fail(errCut)
		return 0
	}
	return int(count)
}

// scalar steps over a value that holds no others.
func (w *walker) scalar(n *node) {
	switch n.kind {
	case kindBoolean:
		w.take(1)
	case kindInt, kindLong:
		w.long()
	case kindFloat:
		w.take(4)
	case kindDouble:
		w.take(8)
	case kindBytes, kindString:
		w.bytes()
	case kindFixed:
		w.take(n.size)
	case kindEnum:
		w.index(len(n.symbols))
	}
}

func (w *walker) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.src = nil
}

// end returns what went wrong, bytes left over included.
func (w *walker) end() error {
	if w.err == nil && len(w.src) > 0 {
		return fmt.Errorf("%d bytes left over", len(w.src))
	}
	return w.err
}

func (w *walker) long() int64 {
	if len(w.src) > 0 && w.src[0] < 0x80 {
		u := w.src[0]
		w.src = w.src[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	u, n := binary.Uvarint(w.src)
	if n <= 0 {
		w.fail(errCut)
		return 0
	}
	w.src = w.src[n:]
	return int64(u>>1) ^ -int64(u&1)
}

// take returns the next n bytes, or nil after an error.
func (w *walker) take(n int) []byte {
	if n < 0 || n > len(w.src) {
		w.fail(errCut)
		return nil
	}
	b := w.src[:n]
	w.src = w.src[n:]
	return b
}

func (w *walker) bytes() []byte {
	n := w.long()
	if n < 0 || n > int64(len(w.src)) {
		w.fail(errCut)
		return nil
	}
	return w.take(int(n))
}

// index reads the number of a branch or symbol, of which there are n.
func (w *walker) index(n int) int {
	i := w.long()
	if i < 0 || i >= int64(n) {
		w.fail(fmt.Errorf("no choice %d of %d", i, n))
		return 0
	}
	return int(i)
}
