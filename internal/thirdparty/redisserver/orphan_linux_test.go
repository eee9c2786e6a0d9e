package redisserver_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

const orphan = "TRYPEMA_ORPHAN"

// A server does not survive tests that are killed.
func TestNoOrphans(t *testing.T) {
	if os.Getenv(orphan) != "" {
		fmt.Println(orphan, redisserver.Start(t).Addr())
		select {} // until killed
	}

	tests := exec.Command(os.Args[0], "-test.run=^TestNoOrphans$", "-test.timeout=5m")
	tests.Env = append(os.Environ(), orphan+"=1", "TMPDIR="+t.TempDir()) // it will not tidy up
	output, err := tests.StdoutPipe()
	must.OK(t, err)
	must.OK(t, tests.Start())
	addr := ""
	for lines := bufio.NewScanner(output); addr == "" && lines.Scan(); {
		_, addr, _ = strings.Cut(lines.Text(), orphan+" ")
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("no server at %q: %v", addr, err)
	}
	_ = tests.Process.Kill()
	_ = tests.Wait()
	if c != nil {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("the server at %s lives on: %v", addr, err)
		}
		_ = c.Close()
	}
}
