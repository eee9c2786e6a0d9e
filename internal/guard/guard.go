// Package guard keeps code that callers have passed in from ending the process when it panics on a goroutine
// of ours, where no caller can recover it.
package guard

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Call calls f. If f panics it returns that as an error, with the stack; whose says whose code f is.
func Call(whose string, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v\n\n%s", whose, p, debug.Stack())
		}
	}()
	f()
	return nil
}

// Log calls f. If f panics it logs that: for code whose caller cannot be given an error.
func Log(whose string, f func()) {
	if err := Call(whose, f); err != nil {
		slog.Error("trypema: a panic was recovered", "err", err)
	}
}
