//go:build unix && !linux

package redisserver

import "syscall"

const (
	stop   = syscall.SIGSTOP
	resume = syscall.SIGCONT
)
