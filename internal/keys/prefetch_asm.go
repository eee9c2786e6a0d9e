//go:build (amd64 || arm64) && !purego

package keys

import "unsafe"

// prefetch asks for the two cache lines of an entry, to be written to. It waits for nothing.
//
//go:noescape
func prefetch(p unsafe.Pointer)
