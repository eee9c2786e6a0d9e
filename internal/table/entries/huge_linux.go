package entries

import (
	"os"
	"syscall"
	"unsafe"
)

// AdviseHuge asks for huge pages for some memory, and for what lies beside it in the same pages. It is a wish
// only: where the system does not have them, or not for this memory, nothing changes.
func AdviseHuge(at, size uintptr) {
	const advice = 14 // MADV_HUGEPAGE
	from := at &^ (HugePage - 1)
	to := (at + size + HugePage - 1) &^ (HugePage - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice)
}

// Prepare asks for huge pages for some memory, and has the system make it ready for use. Where it cannot, the
// first touch takes longer.
func Prepare(p unsafe.Pointer, size uintptr) {
	const advice = 23 // MADV_POPULATE_WRITE, of Linux 5.14
	at, page := uintptr(p), uintptr(os.Getpagesize())
	AdviseHuge(at, size)
	from := at &^ (page - 1)
	to := (at + size + page - 1) &^ (page - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice)
}
