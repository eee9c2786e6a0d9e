package onserve

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

// TestSignals: SIGHUP has the configuration read at once, SIGTERM drains, and Ctrl-C does not wait for that.
func TestSignals(t *testing.T) {
	text := func(n int) string {
		return fmt.Sprintf("domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: %d}}\n", n)
	}
	config := file(t, "config.yaml", text(1))
	s := serve(t, "--config", config, "--watch=0s", "--drain=1h")
	must.OK(t, os.WriteFile(config, []byte(text(2)), 0o600))
	must.OK(t, s.Process.Signal(syscall.SIGHUP))
	eventually(t, "the new configuration", s.process, func() error {
		a, err := get(t, "http://"+s.admin+"/rlconfig")
		if err == nil && !strings.Contains(a.body, "d.k: 2 per day\n") {
			err = fmt.Errorf("/rlconfig: %s", a.body)
		}
		return err
	})
	must.OK(t, s.Process.Signal(syscall.SIGTERM))
	eventually(t, "the drain", s.process, func() error {
		a, err := get(t, "http://"+s.admin+"/readyz")
		if err == nil && a.code != 503 {
			err = fmt.Errorf("/readyz: %d %s", a.code, a.body)
		}
		return err
	})
	if a, err := get(t, "http://"+s.http+"/openapi.yaml"); err != nil || a.code != 200 {
		t.Errorf("while it drains: %v, %v", a, err)
	}

	one := serve(t, "--drain=1h")
	must.OK(t, one.Process.Signal(os.Interrupt))
	<-one.ended
	must.OK(t, one.err)
}

// TestLeasesGoBack: what a server of Hybrid has on lease is there for others once it has ended.
func TestLeasesGoBack(t *testing.T) {
	store := redisserver.Start(t)
	args := []string{"--redis", "redis://" + store.Addr(), "--redis-timeout", "10s", "--hybrid"}
	ask := func(s *server) bool {
		a := post(t, "http://"+s.http+"/v1/allow", `{"limit":100,"window":"24h","key":"k"}`)
		return strings.Contains(a.body, `"allowed":true`)
	}
	first := serve(t, args...)
	for range 10 {
		if !ask(first) {
			t.Fatal("the first is denied")
		}
	}
	first.stop(t)
	second := serve(t, args...)
	admitted := 10
	for range 120 {
		if ask(second) {
			admitted++
		}
	}
	if admitted != 100 {
		t.Errorf("%d were admitted, want all 100", admitted)
	}
}

// TestAsAStranger: in an empty folder, without flags, the commands that are printed work.
func TestAsAStranger(t *testing.T) {
	program(t, "curl")
	program(t, "redis-cli")
	s := serve(t)
	var lines []string
	eventually(t, "three commands", s.process, func() error {
		_, commands, _ := strings.Cut(s.greeting.String(), "Try:\n")
		if lines = strings.Split(strings.TrimSpace(commands), "\n"); len(lines) != 3 {
			return fmt.Errorf("it prints %q", s.greeting.String())
		}
		return nil
	})
	for i, want := range []string{"HTTP/1.1 200 OK", "0\n5\n4\n-1\n60\n", `"overallCode":"OK"`} {
		if strings.Contains(lines[i], "grpcurl") {
			want = `"overallCode": "OK"`
		}
		c := exec.CommandContext(t.Context(), "sh", "-c", lines[i])
		c.Dir = t.TempDir()
		out, err := c.Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", strings.TrimSpace(lines[i]), err, out)
		}
	}
}
