// Package invalid makes the errors for bad input: a sentinel to act on, and words that name the field, its
// value and the rule.
package invalid

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// inputError says in its own words what its sentinel only classifies.
type inputError struct {
	kind error
	text string
}

func (e *inputError) Error() string { return "trypema: " + e.text }
func (e *inputError) Unwrap() error { return e.kind }

// Errorf returns an error that is the sentinel kind.
func Errorf(kind error, format string, args ...any) error {
	return &inputError{kind, fmt.Sprintf(format, args...)}
}

// Nil reports whether there is nothing behind an interface: it is nil, or holds a pointer, function, map,
// channel or slice that is. Its methods would panic at the first call, perhaps on another goroutine.
func Nil(v any) bool {
	switch of := reflect.ValueOf(v); of.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Slice:
		return of.IsNil()
	}
	return false
}

// NameRule is the rule that Name checks, in words.
const NameRule = "printable UTF-8 without a space at either end"

// Name reports whether a text can be a name: in metrics, statuses and logs, where one that is not UTF-8
// breaks what holds it, and to people, who must be able to tell two names apart. An empty text can.
func Name(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}
