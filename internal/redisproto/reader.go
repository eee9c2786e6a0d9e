package redisproto

import (
	"fmt"
	"math"
)

// Reader takes a reply apart. What does not have the shape that was expected is an error, and all that
// follows it.
type Reader struct {
	reply []any
	next  int
	err   error
}

// NewReader returns a reader of a reply.
func NewReader(reply []any) *Reader { return &Reader{reply: reply} }

// Fault takes what is wrong with a key, if that is what comes next.
func (r *Reader) Fault() (text string, ok bool) {
	if r.err == nil && r.More() {
		if text, ok = r.reply[r.next].(string); ok {
			r.next++
		}
	}
	return text, ok
}

// More reports whether anything is left.
func (r *Reader) More() bool { return r.next < len(r.reply) }

// Count takes a whole number from 0 to most.
func (r *Reader) Count(most uint64) uint64 {
	n := r.Number()
	if n < 0 || uint64(n) > most {
		r.Fail("%d, not a number from 0 to %d", n, most)
		return 0
	}
	return uint64(n)
}

// Number takes a whole number.
func (r *Reader) Number() int64 { return take[int64](r, "number") }

// take takes an element of a type, which errors call by a name.
func take[T any](r *Reader, name string) (element T) {
	if !r.More() {
		r.Fail("missing")
		return element
	}
	element, ok := r.reply[r.next].(T)
	if !ok {
		r.Fail("%T, not a %s", r.reply[r.next], name)
	}
	r.next++
	return element
}

// Wait takes how long to wait, in µs: 0 for not at all, or −1 for ever.
func (r *Reader) Wait() int64 {
	n := r.Number()
	if n < -1 || n > math.MaxInt64/1000 { // it becomes a time.Duration
		r.Fail("%d, not a time to wait", n)
		return 0
	}
	return n
}

// Text takes a string.
func (r *Reader) Text() string { return take[string](r, "string") }

// Fail says what is wrong with the reply at this element, unless something was wrong before.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("reply of %d elements: element %d is "+format,
			append([]any{len(r.reply), r.next}, args...)...)
	}
}

// Err returns what is wrong with the reply so far.
func (r *Reader) Err() error { return r.err }

// Done returns what is wrong with the reply, if only that there is more than was taken.
func (r *Reader) Done() error {
	if r.More() {
		r.Fail("more than expected")
	}
	return r.err
}
