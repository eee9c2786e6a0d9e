package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/pipes"
	"github.com/trypema/trypema/redislimit"
)

// virtually runs a test in virtual time, with a network that is in it: no call takes any time there but that
// which a limiter waits.
func virtually(t *testing.T, test func(t *testing.T, w *web)) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{listeners: make(map[string]*listener)}
		test(t, &web{listen: n.listen, dial: n.dial})
	})
}

// network is one in memory.
type network struct {
	mu        sync.Mutex // guards the fields below
	listeners map[string]*listener
	opened    int
}

// listener is a Listener with an address of its own.
type listener struct {
	*pipes.Listener
	addr *net.TCPAddr
}

func (n *network) listen(string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened++
	l := &listener{pipes.New(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n.opened}}
	n.listeners[l.addr.String()] = l
	return l, nil
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	return l.DialContext(ctx)
}

func (l *listener) Addr() net.Addr { return l.addr }

// client returns a client of the servers in the network, whose connections end with the test.
func (w web) client(t *testing.T) *http.Client {
	transport := w.transport(1)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// virtualRedis is a server in virtual time.
type virtualRedis struct{ server *fakeredis.Server }

func (v virtualRedis) road() (road, error) {
	return &virtualRoad{server: v.server, changed: make(chan struct{})}, nil
}

func (v virtualRedis) limits(roads []road, provider string, o redislimit.Options) (*store.Limits, error) {
	o.Instances = len(roads)
	l := new(store.Limits)
	for _, r := range roads {
		i, err := providerOn(r.(*virtualRoad), provider, o)
		if err != nil {
			return nil, err
		}
		l.Instances = append(l.Instances, i)
	}
	return l, nil
}

func providerOn(c redislimit.Conn, provider string, o redislimit.Options) (trypema.Provider, error) {
	if provider == store.Hybrid {
		return hybridlimit.New(c, hybridlimit.Options{Options: o})
	}
	return redislimit.New(c, o)
}

// virtualRoad is a redislimit.Conn that does to what passes what a proxy does.
type virtualRoad struct {
	server *fakeredis.Server

	mu      sync.Mutex // guards the fields below
	delay   time.Duration
	refuses bool
	holds   bool
	changed chan struct{} // closed when they change
}

func (r *virtualRoad) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *virtualRoad) SetDelay(d time.Duration) { r.change(func() { r.delay = d }) }
func (r *virtualRoad) Refuse(on bool)           { r.change(func() { r.refuses = on }) }
func (r *virtualRoad) Blackhole(on bool)        { r.change(func() { r.holds = on }) }
func (r *virtualRoad) Close() error             { return nil }
func (r *virtualRoad) OneServer() bool          { return true }

var errRefused = errors.New("connection refused")

func (r *virtualRoad) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	if err := r.pass(ctx); err != nil {
		for i := range keys {
			answer(i, nil, err)
		}
		return
	}
	r.server.Run(ctx, source, sha1, keys, args, answer)
}

// pass returns when something has come to the other end.
func (r *virtualRoad) pass(ctx context.Context) error {
	for {
		r.mu.Lock()
		delay, refuses, holds, changed := r.delay, r.refuses, r.holds, r.changed
		r.mu.Unlock()
		switch {
		case refuses:
			return errRefused
		case holds:
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if delay == 0 {
			return nil
		}
		select {
		case <-time.After(delay):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
