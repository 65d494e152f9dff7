package db

import "time"

// SetBound sets how long a statement outside a transaction may take.
func (d *DB) SetBound(bound time.Duration) { d.bound = bound }

// PingTimeout is how long a connection that has rested may take to answer.
const PingTimeout = pingTimeout

// AskAlways has each connection asked whether the server is there before it is used again.
func (d *DB) AskAlways() { d.rested.after = 0 }
