package main

import (
	"errors"
	"fmt"
	"os"
)

// host stands in for the test that a redisserver wants.
type host struct {
	ends   []func()
	failed bool
}

// fatal is what a host panics with, to end what would be the test.
type fatal struct{ error }

func (h *host) Helper()                 {}
func (h *host) Failed() bool            { return h.failed }
func (h *host) Cleanup(f func())        { h.ends = append(h.ends, f) }
func (h *host) Logf(s string, a ...any) { fmt.Fprintf(os.Stderr, s+"\n", a...) }
func (h *host) Error(a ...any)          { h.Fatal(a...) }
func (h *host) Skip(a ...any)           { h.Fatal(a...) }
func (h *host) Fatalf(s string, a ...any) {
	h.Fatal(fmt.Sprintf(s, a...))
}

func (h *host) Fatal(a ...any) {
	h.failed = true
	panic(fatal{errors.New(fmt.Sprint(a...))})
}

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// end cleans up, and returns the error of a Fatal that was recovered.
func (h *host) end(recovered any) error {
	for i := len(h.ends) - 1; i >= 0; i-- {
		h.ends[i]()
	}
	if f, ok := recovered.(fatal); ok {
		return f.error
	}
	if recovered != nil {
		panic(recovered)
	}
	return nil
}
