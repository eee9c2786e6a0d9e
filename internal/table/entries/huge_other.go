//go:build !linux

package entries

// AdviseHuge does nothing where the system decides by itself.
func AdviseHuge(uintptr, uintptr) {}
