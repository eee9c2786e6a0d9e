//go:build !linux

package realredis

import "syscall"

// attributes are the usual ones: the process is in the group of this one, so that what interrupts the tests
// interrupts it.
func attributes() *syscall.SysProcAttr { return nil }

// kill ends the process. Its children, if it is writing to disk, end by themselves.
func (p *process) kill() error { return p.command.Process.Kill() }
