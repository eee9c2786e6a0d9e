//go:build unix && !linux

package realredis

import "syscall"

const (
	stop   = syscall.SIGSTOP
	resume = syscall.SIGCONT
)
