//go:build !(amd64 || arm64) || purego

package keys

import "unsafe"

// prefetch does nothing where Go has no such instruction: the first access waits.
func prefetch(unsafe.Pointer) {}
