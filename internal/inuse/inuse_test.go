package inuse_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/inuse"
)

type user struct{ name string }

// Something is in use as long as one of its users can be reached.
func TestHold(t *testing.T) {
	var one, both inuse.Count
	first, second := &user{"first"}, &user{"second"}
	inuse.Hold(first, &one)
	inuse.Hold(first, &both)
	inuse.Hold(second, &both)
	is := func(step string, c *inuse.Count, none bool) {
		t.Helper()
		for range 200 {
			runtime.GC()
			if c.None() == none {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: none uses it: %v, want %v", step, c.None(), none)
	}
	is("both are used", &one, false)
	is("both are used", &both, false)
	runtime.KeepAlive(first)
	is("the first has gone", &one, true)
	is("the first has gone", &both, false)
	runtime.KeepAlive(second)
	is("the second has gone", &both, true)
}
