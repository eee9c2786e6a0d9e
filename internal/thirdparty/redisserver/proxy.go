package redisserver

import (
	"testing"

	"github.com/trypema/trypema/internal/proof/proxy"
)

// StartProxy returns a proxy to target, which ends with t.
func StartProxy(t testing.TB, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.Start(target)
	if err != nil {
		t.Fatal("redisserver:", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}
