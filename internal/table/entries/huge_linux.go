package entries

import "syscall"

// AdviseHuge asks for huge pages for some memory, and for what lies beside it in the same pages. It is a wish
// only: where the system does not have them, or not for this memory, nothing changes.
func AdviseHuge(at, size uintptr) {
	const advice = 14 // MADV_HUGEPAGE
	from := at &^ (HugePage - 1)
	to := (at + size + HugePage - 1) &^ (HugePage - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice)
}
