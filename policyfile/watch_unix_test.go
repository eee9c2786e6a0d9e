//go:build unix

package policyfile_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/policyfile"
)

// What is not a regular file is reported, and does not hold up Watch, which looks on, and ends with its
// context.
func TestWatchWhatIsNotAFile(t *testing.T) {
	dir := t.TempDir()
	pipe, link, socket := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "socket")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	must.OK(t, os.Symlink(pipe, link))
	listener, err := net.Listen("unix", socket)
	must.OK(t, err)
	defer func() { _ = listener.Close() }()
	for path, kind := range map[string]string{
		pipe: "a named pipe", link: "a named pipe", socket: "a socket", dir: "a folder", os.DevNull: "a device",
	} {
		t.Run(kind, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			reports := make(chan error, 100)
			var running sync.WaitGroup
			running.Go(func() {
				policyfile.Watch(ctx, path, time.Millisecond, func(...trypema.Policy) error { return nil },
					func(err error) { reports <- err })
			})
			err := <-reports
			if want := "read " + path + ": it is " + kind + "; it must be a regular file"; err == nil ||
				err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
			if path == link { // and a file in its place is taken
				write(t, filepath.Join(dir, "file"), file("10/s"))
				must.OK(t, os.Remove(link))
				must.OK(t, os.Symlink(filepath.Join(dir, "file"), link))
				for err := range reports {
					if err == nil {
						break
					}
				}
			}
			cancel()
			running.Wait()
		})
	}
}

// Load reads a pipe as any program does.
func TestLoadPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() { write(t, pipe, file("10/s")) })
	if list, err := policyfile.Load(pipe); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	writing.Wait()
}
