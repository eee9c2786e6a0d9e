package entries

import (
	"os"
	"syscall"
	"unsafe"
)

// adviseHuge asks for huge pages for some memory, and for what lies beside it in the same pages. It is a wish
// only: where the system does not have them, or not for this memory, nothing changes.
func adviseHuge(p unsafe.Pointer, size uintptr) {
	const advice = 14 // MADV_HUGEPAGE
	advise(p, size, HugePage, advice)
}

// Prepare asks for huge pages for some memory, and has the system make it ready for use. Where it cannot, the
// first touch takes longer.
func Prepare(p unsafe.Pointer, size uintptr) {
	const advice = 23 // MADV_POPULATE_WRITE, of Linux 5.14
	adviseHuge(p, size)
	advise(p, size, uintptr(os.Getpagesize()), advice)
}

// advise tells the system something of all pages in which some memory lies.
func advise(p unsafe.Pointer, size, page, advice uintptr) {
	from := uintptr(p) &^ (page - 1)
	to := (uintptr(p) + size + page - 1) &^ (page - 1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice)
}
