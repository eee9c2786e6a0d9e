package realredis

import (
	"os"
	"syscall"
)

// attributes make a process the first of a group, and have it killed when the thread that started it ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// kill ends the process and its group.
func (p *process) kill() error {
	err := syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	if err == syscall.ESRCH {
		return os.ErrProcessDone
	}
	return err
}
