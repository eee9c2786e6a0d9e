package keys

import "syscall"

// adviseHuge asks for huge pages for some memory, and for what lies beside it in the same pages. It is a wish
// only: where the system does not have them, or not for this memory, nothing changes.
func adviseHuge(at, size uintptr) {
	const advice = 14 // MADV_HUGEPAGE
	from := at &^ (hugePage - 1)
	to := (at + size + hugePage - 1) &^ (hugePage - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice)
}
