// Package inuse counts who uses something that several share, so that it can go when none is left.
package inuse

import (
	"runtime"
	"sync/atomic"
)

// Count is how many values use something. The zero value is none.
type Count struct{ n atomic.Int64 }

// None reports whether nothing uses it.
func (c *Count) None() bool { return c.n.Load() == 0 }

// Hold counts a user of something, until the garbage collector finds that it cannot be reached any more. What
// a method of the user does with that after its last mention of the user needs a runtime.KeepAlive.
func Hold[T any](user *T, c *Count) {
	c.n.Add(1)
	runtime.AddCleanup(user, func(c *Count) { c.n.Add(-1) }, c)
}
