//go:build !linux

package entries

import "unsafe"

// AdviseHuge and Prepare do nothing where the system decides by itself.
func AdviseHuge(uintptr, uintptr) {}

// Prepare is as AdviseHuge.
func Prepare(unsafe.Pointer, uintptr) {}
