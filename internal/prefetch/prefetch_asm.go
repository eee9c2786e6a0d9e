//go:build (amd64 || arm64) && !purego

// Package prefetch asks for memory before it is needed.
package prefetch

import "unsafe"

// Two asks for the cache line at an address and for the one after it, to be written to. It waits for nothing,
// and does nothing where Go has no such instruction.
//
//go:noescape
func Two(p unsafe.Pointer)
