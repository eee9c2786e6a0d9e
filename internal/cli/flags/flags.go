// Package flags makes every complaint about a flag say the same three things: its name, its value and the
// rule.
package flags

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Error is a flag whose value breaks a rule. It is the user's to mend, not the program's.
type Error struct {
	// Name is the flag without its dashes.
	Name string
	// Value is what was given, as it would be written on the command line; empty when nothing was.
	Value string
	// Rule completes the sentence "it must be …".
	Rule string
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("--%s has no value; it must be %s", e.Name, e.Rule)
	}
	return fmt.Sprintf("--%s is %s; it must be %s", e.Name, e.Value, e.Rule)
}

// Check returns nil when ok, else an Error for the flag.
func Check(ok bool, name string, value any, rule string) error {
	if ok {
		return nil
	}
	return &Error{name, fmt.Sprint(value), rule}
}

// First returns the first error that is not nil: one line tells the user one thing to mend.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// OneOf checks that value is one of the words.
func OneOf(name, value string, words ...string) error {
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	return &Error{name, strconv.Quote(value), "one of " + strings.Join(words, ", ")}
}

// Or is the value of a flag, or otherwise if the flag was not given.
func Or[T any](flag *T, otherwise T) T {
	if flag == nil {
		return otherwise
	}
	return *flag
}

// Mappers replaces kong's parsers of numbers and durations, whose messages name neither the flag nor the rule
// in a form that is the same for all of them.
func Mappers() []kong.Option {
	return []kong.Option{
		kong.KindMapper(reflect.Float64, mapper("a number", func(s string) (float64, error) {
			return strconv.ParseFloat(s, 64)
		})),
		kong.KindMapper(reflect.Int, mapper("a whole number", strconv.Atoi)),
		kong.TypeMapper(reflect.TypeFor[time.Duration](),
			mapper("a duration such as 500ms, 10s or 1m", time.ParseDuration)),
		kong.KindMapper(reflect.Bool, boolMapper{mapper("true or false", strconv.ParseBool)}),
		kong.KindMapper(reflect.String, mapper("a word", func(s string) (string, error) { return s, nil })),
	}
}

// boolMapper parses flags that need no value.
type boolMapper struct{ withValue kong.Mapper }

// IsBool tells kong that the next argument is no value of the flag.
func (boolMapper) IsBool() bool { return true }

// Decode parses the value of --flag=value; a flag alone is true.
func (m boolMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		return m.withValue.Decode(ctx, target)
	}
	target.SetBool(true)
	return nil
}

func mapper[T any](rule string, parse func(string) (T, error)) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token := ctx.Scan.Pop()
		if token.IsEOL() {
			return &Error{ctx.Value.Name, "", rule}
		}
		text := token.String()
		v, err := parse(text)
		if err != nil {
			return &Error{ctx.Value.Name, strconv.Quote(text), rule}
		}
		target.Set(reflect.ValueOf(v))
		return nil
	}
}
