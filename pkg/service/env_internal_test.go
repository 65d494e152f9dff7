package service

import (
	"sync"
	"testing"
	"weak"
)

func TestGiveBack(t *testing.T) {
	t.Parallel()
	var pool sync.Pool
	buffer := new([4 << 20]byte)
	kept := weak.Make(buffer)
	pool.Put(buffer)
	giveBack()
	if kept.Value() != nil {
		t.Error("a buffer in a pool is still there")
	}
	pool.Get()
}
