package realredis_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/realredis"
)

func TestMain(m *testing.M) { leak.Main(m) }

// TestServer: a server listens from Start to Kill, again from Restart on, and no longer after Close. More is
// in internal/thirdparty/redisserver, where there is a client.
func TestServer(t *testing.T) {
	s, err := realredis.Start(t.Context())
	if missing := (*realredis.MissingError)(nil); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addr()
	listens := func(want bool) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if (err == nil) != want {
			t.Errorf("listens: %v, want %v", err == nil, want)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	listens(true)
	for range 2 {
		must.Report(t, s.Kill())
		listens(false)
	}
	must.Report(t, s.Restart(t.Context()))
	listens(true)
	must.Report(t, errors.Join(s.Pause(), s.Resume()))
	if !strings.Contains(s.Output(), "Ready to accept connections") {
		t.Errorf("it printed %q", s.Output())
	}
	must.Report(t, s.Close())
	listens(false)
	if s.Pause() == nil {
		t.Error("a server that has ended was paused")
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := realredis.Start(ctx); err == nil {
		t.Error(errors.Join(errors.New("it started"), s.Close()))
	}
}
