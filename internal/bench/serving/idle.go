package serving

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/trypema/trypema/internal/cli/screen"
)

// idle opens connections to trypema serve, each of which asks once and then stays, and says by how much the
// resident memory of the process has grown. There are 24,000, or as many as this process may open.
func idle(ctx context.Context, s *stage) (string, error) {
	c, err := serve("trypema serve, Local", "resp", "")(ctx, s)
	if err != nil {
		return "", err
	}
	defer c.stop()
	before, err := resident(c.pid)
	if err != nil {
		return "", missing("the memory of a process", err.Error())
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	n := int(min(24_000, max(limit.Cur, 1000)-500))
	if s.command.Quick {
		n = min(n, 2000)
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for i := range n {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.address)
		if err != nil {
			return "", err
		}
		conns = append(conns, conn)
		if _, err := fmt.Fprintf(conn, "CL.THROTTLE idle:%d 9 10 60\r\n", i); err != nil {
			return "", err
		}
		r := bufio.NewReaderSize(conn, 128)
		for range 6 {
			if _, err := r.ReadString('\n'); err != nil {
				return "", errors.Join(err, io.ErrUnexpectedEOF)
			}
		}
		if i%100 == 0 {
			s.bar.Set(0, "idle connections")
		}
	}
	after, err := resident(c.pid)
	if err != nil {
		return "", err
	}
	each := float64(after-min(after, before)) / float64(n) / 1024
	return fmt.Sprintf("%s idle connections of the Redis protocol: %.1f KiB each", screen.Count(uint64(n)), each), nil
}

// resident is the resident memory of a process in bytes, as Linux counts it.
func resident(pid int) (bytes uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, err = fmt.Sscanf(rest, "%d kB", &bytes)
			return bytes * 1024, err
		}
	}
	return 0, errors.New("/proc has no VmRSS")
}
