//go:build !unix

package realredis

import "syscall"

// There is no such thing here: to send them fails.
const (
	stop   = syscall.Signal(-1)
	resume = syscall.Signal(-1)
)
