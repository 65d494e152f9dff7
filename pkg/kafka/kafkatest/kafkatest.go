// Package kafkatest does to the embedded broker what tests of several packages need.
package kafkatest

import (
	"errors"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var errAway = errors.New("away")

// HoldFetches lets no fetch have an answer, as if the consumers were stopped, until release is
// called. It returns once so many were turned away that none which was sent before is under way
// any more: one for each connection that fetches is enough.
func HoldFetches(cluster *kfake.Cluster, atLeast int) (release func()) {
	var away atomic.Bool
	away.Store(true)
	turned := make(chan struct{}, atLeast)
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !away.Load() {
			return nil, nil, false
		}
		select {
		case turned <- struct{}{}:
		default:
		}
		return nil, errAway, true
	})
	for range atLeast {
		<-turned
	}
	return func() { away.Store(false) }
}
