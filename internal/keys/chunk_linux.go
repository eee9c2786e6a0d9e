package keys

import "syscall"

// adviseHuge asks for a huge page at an address. It is a wish only: where the system does not have them, or
// no huge page begins there, nothing changes.
func adviseHuge(at uintptr) {
	const advice = 14 // MADV_HUGEPAGE
	if at%hugePage == 0 {
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, at, hugePage, advice)
	}
}
