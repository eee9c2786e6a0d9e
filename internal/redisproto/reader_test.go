package redisproto

import (
	"errors"
	"strings"
	"testing"
)

// What is wrong with a reply is said once, of the first element that is not what was expected.
func TestReader(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply []any
		read  func(r *Reader)
		says  string // "" for no error
	}{
		{"all as expected", []any{"NOTAWINDOW", int64(3), int64(-1), "log"}, func(r *Reader) {
			if text, ok := r.Fault(); text != "NOTAWINDOW" || !ok {
				t.Errorf("Fault: %q, %v", text, ok)
			}
			if text, ok := r.Fault(); text != "" || ok {
				t.Errorf("Fault of a number: %q, %v", text, ok)
			}
			if n, m, s := r.Count(3), r.Number(), r.Text(); n != 3 || m != -1 || s != "log" {
				t.Errorf("%d, %d, %q", n, m, s)
			}
		}, ""},
		{"a count above its bound", []any{int64(4)}, func(r *Reader) { r.Count(3) }, "4, not a number from 0 to 3"},
		{"a count below 0", []any{int64(-1)}, func(r *Reader) { r.Count(3) }, "-1, not a number from 0 to 3"},
		{"times to wait", []any{int64(-1), int64(0), int64(9223372036854775)}, func(r *Reader) {
			if a, b, c := r.Wait(), r.Wait(), r.Wait(); a != -1 || b != 0 || c != 9223372036854775 {
				t.Errorf("%d, %d, %d", a, b, c)
			}
		}, ""},
		{"a time to wait that is no duration", []any{int64(9223372036854776)}, func(r *Reader) { r.Wait() },
			"9223372036854776, not a time to wait"},
		{"a negative time to wait", []any{int64(-2)}, func(r *Reader) { r.Wait() }, "-2, not a time to wait"},
		{"no number", nil, func(r *Reader) { r.Number() }, "of 0 elements: element 0 is missing"},
		{"no string", nil, func(r *Reader) { r.Text() }, "element 0 is missing"},
		{"a string for a number", []any{int64(1), "1"}, func(r *Reader) { r.Number(); r.Number() },
			"of 2 elements: element 1 is string, not a number"},
		{"a number for a string", []any{int64(1)}, func(r *Reader) { r.Text() }, "element 0 is int64, not a string"},
		{"more than expected", []any{int64(1)}, func(*Reader) {}, "element 0 is more than expected"},
		{"a fault after an error", []any{int64(1), "x"}, func(r *Reader) {
			r.Text()
			if _, ok := r.Fault(); ok {
				t.Error("Fault after an error")
			}
		}, "not a string"},
		{"the first of two", nil, func(r *Reader) { r.Fail("odd"); r.Number() }, "element 0 is odd"},
	} {
		r := NewReader(test.reply)
		test.read(r)
		err := r.Done()
		if test.says == "" && err != nil ||
			test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
		if !errors.Is(r.Err(), err) {
			t.Errorf("%s: Err %v, Done %v", test.name, r.Err(), err)
		}
	}
}
