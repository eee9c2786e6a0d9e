//go:build !linux

package keys

// adviseHuge does nothing where the system decides by itself.
func adviseHuge(uintptr, uintptr) {}
