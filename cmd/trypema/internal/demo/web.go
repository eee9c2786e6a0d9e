package demo

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/proxy"
	"github.com/trypema/trypema/redislimit"
)

// web is the network of the servers and of their clients: the loopback interface, or one in the memory of a
// test, which can be in virtual time.
type web struct {
	listen func(addr string) (net.Listener, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

var loopback = web{
	listen: func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) },
	dial:   new(net.Dialer).DialContext,
}

// transport keeps so many connections to each server open.
func (w web) transport(idle int) *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: idle, DialContext: w.dial}
}

// backend is the Redis server of the page.
type backend interface {
	// road returns a new way to the server.
	road() (road, error)

	// limits returns instances of a provider, each of which has one of the roads.
	limits(roads []road, provider string, o redislimit.Options) (*store.Limits, error)
}

// road is the way of an instance to its server. It misbehaves when told to.
type road interface {
	SetDelay(d time.Duration)
	Refuse(on bool)
	Blackhole(on bool)
	Close() error
}

// realRedis is a server that is reached by proxies.
type realRedis struct{ *store.Server }

func (r realRedis) road() (road, error) { return proxy.Start(r.Addr()) }

func (r realRedis) limits(roads []road, provider string, o redislimit.Options) (*store.Limits, error) {
	var addrs []string
	for _, p := range roads {
		addrs = append(addrs, p.(*proxy.Proxy).Addr())
	}
	o.Timeout = timeout(r.Server, pageTimeout)
	return r.LimitsBy(addrs, provider, o)
}

// How long limiters wait for the embedded server, which shares the processors with the clients, servers and
// limiters of the demo: when these are busy it answers late, which is not an outage. On the page an instance
// can be cut off while a call is under way.
const (
	embeddedTimeout = requestTimeout / 2
	pageTimeout     = 2 * time.Second
)

// timeout is how long limiters wait for the server, if it is embedded; 0 for their default.
func timeout(s *store.Server, embedded time.Duration) time.Duration {
	if s.Embedded() {
		return embedded
	}
	return 0
}
