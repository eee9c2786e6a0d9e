// Package policyfile reads policies from files in YAML or JSON, and reads them again when they change.
//
//	policies:
//	  - name: free
//	    limits: [burst=10/s, 1000/d]
//	  - name: pro
//	    strategy: suppressed
//	    cost: 2
//	    limits:
//	      - {rate: 100/m, window: 10s}
//	      - {rate: unlimited, window: 1h}
//
//	  - name: banned
//	    limits: [{limit: 0}]
//	  - name: staff
//	    limits: [{unlimited: true}]
//
// Of a policy, name and limits are required. The strategy is absolute, the default, or suppressed. The cost
// is that of one call, 1 by default. Policies of one group share what a key has used; by default each is a
// group by itself. A policy with shadow: true lets pass what its limits deny.
//
// A limit is a text as trypema.ParseLimit reads it, or a mapping with one of these:
//
//   - rate: a number per time, as in 10/s, 0.5/m, 1000/h, 5000/d or 5/15m; or unlimited, which is counted and
//     never refused.
//   - limit: a whole number, the most in any window. 0 blocks every call.
//   - unlimited: true, which is no limit, and counts nothing.
//
// The window is a duration, as in 500ms, 1h30m or 7d; by default it is the time of the rate. The name is that
// which a decision is refused by, by default the window as Go writes it.
//
// A file is UTF-8, and has at most MaxSize bytes. It is one document: the marks --- and ... may stand around
// it, and a directive such as %YAML 1.2 before it. Names are printable, without a space at either end, so
// that two that look the same are the same.
//
// Whatever is wrong with a file is said, all at once, each with its line. Unknown fields are wrong, and so
// are aliases.
package policyfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/trypema/trypema"
)

// MaxSize is how many bytes a file may have.
const MaxSize = 1 << 20

// Error is one thing that is wrong with a file. Load and Parse return all of them, joined by errors.Join.
type Error struct {
	File string
	// Line and Column are where it is, beginning with 1. They are 0 for what is wrong with the file as a
	// whole.
	Line, Column int
	// Problem names the policy, the field, its value and the rule.
	Problem string
}

// Error returns file:line:column: problem.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Problem)
}

// Load returns the policies of a file. It returns all or, with an error, none.
func Load(path string) ([]trypema.Policy, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// read returns what a file holds, if that is not too much.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Parse returns the policies that data holds. The name stands for the file in errors. It returns all policies
// or, with an error, none.
func Parse(name string, data []byte) ([]trypema.Policy, error) {
	r := &reader{file: name}
	list := r.policies(data)
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return list, nil
}
