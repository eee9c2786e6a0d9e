package redislimit

import "fmt"

// reader takes a reply apart. What does not have the shape that was expected is an error, and all that follows it.
type reader struct {
	reply []any
	next  int
	err   error
}

// fault takes what is wrong with a key, if that is what comes next.
func (r *reader) fault() (text string, ok bool) {
	if r.err == nil && r.more() {
		if text, ok = r.reply[r.next].(string); ok {
			r.next++
		}
	}
	return text, ok
}

func (r *reader) more() bool { return r.next < len(r.reply) }

// count takes a whole number from 0 to most.
func (r *reader) count(most uint64) uint64 {
	n := r.number()
	if n < 0 || uint64(n) > most {
		r.fail("%d, not a number from 0 to %d", n, most)
		return 0
	}
	return uint64(n)
}

func (r *reader) number() int64 {
	if !r.more() {
		r.fail("missing")
		return 0
	}
	n, ok := r.reply[r.next].(int64)
	if !ok {
		r.fail("%T, not a number", r.reply[r.next])
	}
	r.next++
	return n
}

func (r *reader) text() string {
	if !r.more() {
		r.fail("missing")
		return ""
	}
	s, ok := r.reply[r.next].(string)
	if !ok {
		r.fail("%T, not a string", r.reply[r.next])
	}
	r.next++
	return s
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("reply of %d elements: element %d is "+format, append([]any{len(r.reply), r.next}, args...)...)
	}
}

func (r *reader) done() error {
	if r.more() {
		r.fail("more than expected")
	}
	return r.err
}
