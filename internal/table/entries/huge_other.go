//go:build !linux

package entries

import "unsafe"

// adviseHuge does nothing where the system decides by itself.
func adviseHuge(unsafe.Pointer, uintptr) {}

// Prepare does nothing where the system decides by itself.
func Prepare(unsafe.Pointer, uintptr) {}
