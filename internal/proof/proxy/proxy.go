// Package proxy stands between a client and a server, and misbehaves when told to.
package proxy

import (
	"net"
	"sync"
	"time"
)

// Proxy is a TCP proxy that misbehaves when told to. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	pumps    sync.WaitGroup // and whoever starts them

	mu      sync.Mutex
	faults  faults         // guarded by mu
	changed chan struct{}  // guarded by mu: closed when faults change
	links   map[*link]bool // guarded by mu: all that are open
	closed  bool           // guarded by mu
}

// faults are what a Proxy does to what passes through it.
type faults struct {
	delay        time.Duration
	dropReplies  bool
	holdRequests bool
	holdReplies  bool
	refuse       bool
}

// link is a connection of a client, and the one to the target that belongs to it.
type link struct {
	client, target net.Conn
	gone           chan struct{} // closed when the link is
	once           sync.Once
}

// chunk is what was read at once, to be written at due or later.
type chunk struct {
	data []byte
	due  time.Time
}

// Start returns a proxy on a free loopback port to target, which passes everything until it is told
// otherwise.
func Start(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), links: make(map[*link]bool)}
	p.pumps.Go(p.accept)
	return p, nil
}

// Close ends the proxy and its connections, and returns when nothing of it runs any more.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Reset()
	p.pumps.Wait()
	return err
}

// Addr returns where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetDelay has whatever is sent to the target from now on arrive d later. 0 is no delay.
func (p *Proxy) SetDelay(d time.Duration) { p.change(func(f *faults) { f.delay = d }) }

// DropReplies decides whether what the target sends vanishes. What the client sends does arrive. A connection
// that has lost something stays deaf to the end: what came after it would be taken for what was lost.
func (p *Proxy) DropReplies(on bool) { p.change(func(f *faults) { f.dropReplies = on }) }

// Blackhole decides whether nothing passes any more, in either direction, as in a network that is split:
// connections stay open, new ones are taken, and what was sent arrives once this is over.
func (p *Proxy) Blackhole(on bool) { p.Hold(on, on) }

// Hold is Blackhole for each direction: whether what the client sends stays on its way, and what the target
// sends.
func (p *Proxy) Hold(requests, replies bool) {
	p.change(func(f *faults) { f.holdRequests, f.holdReplies = requests, replies })
}

// Refuse decides whether connections are closed, those that are open and those to come, as where the server
// is gone.
func (p *Proxy) Refuse(on bool) {
	p.change(func(f *faults) { f.refuse = on })
	if on {
		p.Reset()
	}
}

func (p *Proxy) change(f func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) now() (f faults, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

// Reset closes all connections. What is on its way is lost. New ones are taken.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.pumps.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	target, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, target: target, gone: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	if p.closed || p.faults.refuse {
		l.close()
	}
	p.mu.Unlock()

	requests, replies := make(chan chunk, 1024), make(chan chunk, 1024)
	var both sync.WaitGroup
	both.Go(func() { p.read(l, l.client, requests, true) })
	both.Go(func() { p.read(l, l.target, replies, false) })
	both.Go(func() { p.write(l, l.target, requests, false) })
	both.Go(func() { p.write(l, l.client, replies, true) })
	both.Wait()

	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// read queues what comes from a connection, until its end, which is that of the link.
func (p *Proxy) read(l *link, from net.Conn, to chan<- chunk, delayed bool) {
	defer close(to)
	for {
		data := make([]byte, 16<<10)
		n, err := from.Read(data)
		if err != nil {
			l.close()
			return
		}
		c := chunk{data: data[:n]}
		if delayed {
			f, _ := p.now()
			c.due = time.Now().Add(f.delay)
		}
		select {
		case to <- c:
		case <-l.gone:
			return
		}
	}
}

// write writes what is queued to a connection, when it is due, and unless it gets lost.
func (p *Proxy) write(l *link, to net.Conn, from <-chan chunk, replies bool) {
	deaf := false
	for c := range from {
		if !l.sleep(time.Until(c.due)) {
			return
		}
		f, changed := p.now()
		for replies && f.holdReplies || !replies && f.holdRequests {
			select {
			case <-changed:
			case <-l.gone:
				return
			}
			f, changed = p.now()
		}
		deaf = deaf || replies && f.dropReplies
		if deaf {
			continue
		}
		if _, err := to.Write(c.data); err != nil {
			l.close()
			return
		}
	}
}

// sleep reports whether the link is still there after d.
func (l *link) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-l.gone:
		return false
	}
}

// close closes both connections, that of the client as by a reset.
func (l *link) close() {
	l.once.Do(func() {
		close(l.gone)
		for _, c := range []net.Conn{l.client, l.target} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}
	})
}
