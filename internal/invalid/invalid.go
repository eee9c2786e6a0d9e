// Package invalid makes the errors for bad input: a sentinel to act on, and words that name the field, its value and the
// rule.
package invalid

import "fmt"

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
