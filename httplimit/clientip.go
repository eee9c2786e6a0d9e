package httplimit

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// ClientIPOptions say how ByClientIP finds the address of a client. With the zero value it is what ByIP
// finds.
type ClientIPOptions struct {
	// Header is the header in which proxies name their clients: Forwarded (RFC 7239), one with a list of
	// addresses, such as X-Forwarded-For, or one with a single address, such as X-Real-IP. Default none: no
	// header is believed.
	Header string

	// Proxies are the networks of the proxies that set Header. Required with Header, unless Peers names
	// proxies. IPv4 may be written as IPv6 (::ffff:10.0.0.0/104). A network must not be all of IPv4 or IPv6:
	// see AnyPeer.
	Proxies []netip.Prefix

	// Peers are the proxies that connect to this server, if they are not those in Proxies alone. Default
	// PeersInProxies.
	Peers Peers

	// IPv6Bits is the length of the prefix that the IPv6 addresses of one client have in common: all of them
	// are one key. From 1 to 128. Default 64, the network of one customer; a provider that gives customers
	// more gives 56 or 48 bits.
	IPv6Bits int
}

// Peers are those who connect to a server and are believed to be proxies.
type Peers uint8

const (
	// PeersInProxies are peers whose addresses are in Proxies.
	PeersInProxies Peers = iota
	// PeersOnUnixSockets are also those on a unix socket, such as an nginx on the same machine. They have no
	// address.
	PeersOnUnixSockets
	// AnyPeer is every peer. It is for a server that only proxies can reach: whoever else reaches it can
	// claim any address. It makes the last address of the list in Header believed. One before it is believed
	// if those after it are in Proxies.
	AnyPeer
)

// ByForwardedIP is the address of the client as the proxies that are named say it, in the header Forwarded
// (RFC 7239), in one with a list of addresses, such as X-Forwarded-For, or in one with a single address, such
// as X-Real-IP. A header from anybody else is not believed. The list is read from its end, where the nearest
// proxy writes: the first address that is no proxy's is the client's. Where the list has nothing that is an
// address, such as "unknown" or an obfuscated identifier, the last proxy that was seen stands for its
// clients.
//
// One of the networks 0.0.0.0/0 and ::/0 is an error; both of them together are AnyPeer of ByClientIP, which
// has more options.
//
// The error wraps trypema.ErrInvalidOptions: without a header or a proxy it could not tell anybody apart.
func ByForwardedIP(header string, proxies ...netip.Prefix) (KeyFunc, error) {
	c := clientIP{bits: middleware.SiteBits}
	if err := c.believe("httplimit.ByForwardedIP: header", header); err != nil {
		return nil, err
	}
	if err := c.trust("httplimit.ByForwardedIP: proxies", proxies); err != nil {
		return nil, err
	}
	switch {
	case c.allIPv4 && c.allIPv6:
		c.peers = AnyPeer
	case c.allIPv4 || c.allIPv6:
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"httplimit.ByForwardedIP: proxies has %v, which has every client in it; "+
				"it must name the networks of proxies, or both 0.0.0.0/0 and ::/0 if only they can reach the server",
			c.all())
	case len(c.proxies) == 0:
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"httplimit.ByForwardedIP: proxies is empty; it must name the networks of proxies that set %s",
			c.header)
	}
	return c.key, nil
}

// ByClientIP is ByForwardedIP with options. The error wraps trypema.ErrInvalidOptions and names the field.
func ByClientIP(o ClientIPOptions) (KeyFunc, error) {
	c, err := newClientIP(o)
	if err != nil {
		return nil, err
	}
	return c.key, nil
}

// SkipNetworks is for Skip of Options: it reports whether a client is in one of the networks, such as
// 10.0.0.0/8, 2001:db8::/32, or a single address. The address of the client is found as ByClientIP finds it.
// Without a proxy, that is with the zero ClientIPOptions, it is the other end of the connection.
//
// A client whose address is not known is not skipped: one without a valid address in the header of a proxy is
// in no network, although the proxy is. The error wraps trypema.ErrInvalidOptions and names the network; all
// of IPv4 or IPv6 is none, as it would skip everyone.
func SkipNetworks(o ClientIPOptions, networks ...string) (func(*http.Request) bool, error) {
	c, err := newClientIP(o)
	if err != nil {
		return nil, err
	}
	all, err := middleware.ParseNetworks("httplimit.SkipNetworks: networks", networks)
	if err != nil {
		return nil, err
	}
	return func(r *http.Request) bool {
		ip, known, claimed := c.find(r)
		return known && claimed && middleware.InNetworks(all, ip)
	}, nil
}

func newClientIP(o ClientIPOptions) (*clientIP, error) {
	const options = "httplimit.ClientIPOptions."
	bad := func(format string, args ...any) (*clientIP, error) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, options+format, args...)
	}
	c := &clientIP{peers: o.Peers, bits: o.IPv6Bits}
	if c.bits == 0 {
		c.bits = middleware.SiteBits
	}
	switch {
	case o.Peers > AnyPeer:
		return bad("Peers is %d; it must be PeersInProxies, PeersOnUnixSockets or AnyPeer", o.Peers)
	case o.IPv6Bits < 0 || o.IPv6Bits > 128:
		return bad("IPv6Bits is %d; it must be from 1 to 128", o.IPv6Bits)
	case o.Header == "" && (len(o.Proxies) > 0 || o.Peers != PeersInProxies):
		return bad(`Header is ""; it must be the name of the header that the proxies set`)
	case o.Header == "":
		return c, nil
	case len(o.Proxies) == 0 && o.Peers == PeersInProxies:
		return bad("Proxies is empty; it must name the networks of proxies that set %s", o.Header)
	}
	if err := c.believe(options+"Header", o.Header); err != nil {
		return nil, err
	}
	if err := c.trust(options+"Proxies", o.Proxies); err != nil {
		return nil, err
	}
	if c.allIPv4 || c.allIPv6 {
		return bad("Proxies has %v, which has every client in it; "+
			"it must name the networks of proxies, or Peers be AnyPeer if only they can reach the server",
			c.all())
	}
	return c, nil
}

// clientIP finds the addresses of clients.
type clientIP struct {
	header           string // as net/http has it; none if empty
	forwarded        bool   // it is Forwarded
	proxies          []netip.Prefix
	allIPv4, allIPv6 bool // a network was all there is
	peers            Peers
	bits             int
}

// believe sets the header, which errors call by a name.
func (c *clientIP) believe(name, header string) error {
	if header == "" || strings.ContainsAny(header, " \t\r\n:,") {
		return invalid.Errorf(trypema.ErrInvalidOptions, "%s is %q; it must be the name of one", name, header)
	}
	c.header = http.CanonicalHeaderKey(header)
	c.forwarded = c.header == "Forwarded"
	return nil
}

// trust sets the networks of proxies, which errors call by a name.
func (c *clientIP) trust(name string, networks []netip.Prefix) error {
	for i, p := range networks {
		bad := func(rule string) error {
			return invalid.Errorf(trypema.ErrInvalidOptions, "%s[%d] is %v; it must %s", name, i, p, rule)
		}
		if !p.IsValid() {
			return bad("be a network such as 10.0.0.0/8")
		}
		if p.Addr().Is4In6() { // addresses are compared as IPv4
			if p.Bits() < 96 {
				return bad("have at least 96 bits, as an IPv4 network that is written as IPv6 has")
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		switch {
		case p.Bits() > 0:
			c.proxies = append(c.proxies, p)
		case p.Addr().Is4():
			c.allIPv4 = true
		default:
			c.allIPv6 = true
		}
	}
	return nil
}

// all is the network among those of proxies that is all there is.
func (c *clientIP) all() string {
	if c.allIPv4 {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// maxHops is how many addresses of a header are looked at.
const maxHops = 32

// key is a KeyFunc.
func (c *clientIP) key(r *http.Request) (string, bool) {
	ip, known, _ := c.find(r)
	if !known {
		return "", false
	}
	return middleware.NetworkKey(ip, c.bits), true
}

// find returns the address of a client, if it is known. It is not claimed if it is that of the last proxy,
// which stands for its clients as it does not say who they are.
func (c *clientIP) find(r *http.Request) (ip netip.Addr, known, claimed bool) {
	ip, known = middleware.ParseIP(r.RemoteAddr)
	if c.header == "" || !c.isProxy(r, ip) {
		return ip, known, true
	}
	hops, lines := 0, r.Header[c.header]
	proxy := true // what is at ip
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more && proxy; {
			var hop netip.Addr
			var ok bool
			hop, ok, rest, more = c.last(rest)
			if hops++; !ok || hops > maxHops {
				return ip, known, false
			}
			ip, known, proxy = hop, true, c.inProxies(hop)
		}
	}
	return ip, known, true
}

// last takes the last element off a list, and returns the address that it has, and what comes before it.
func (c *clientIP) last(list string) (ip netip.Addr, ok bool, rest string, more bool) {
	if c.forwarded {
		at := lastElement(list)
		node, ok := forwardedFor(list[at:])
		if ok {
			ip, ok = parseNode(node)
		}
		return ip, ok, list[:max(at-1, 0)], at > 0
	}
	at := strings.LastIndexByte(list, ',') + 1
	ip, ok = middleware.ParseIP(strings.TrimSpace(list[at:]))
	return ip, ok, list[:max(at-1, 0)], at > 0
}

// isProxy reports whether the peer of a request is a proxy. It has no valid address if it is on a unix
// socket.
func (c *clientIP) isProxy(r *http.Request, ip netip.Addr) bool {
	switch c.peers {
	case AnyPeer:
		return true
	case PeersOnUnixSockets:
		if !ip.IsValid() {
			return onUnixSocket(r)
		}
	}
	return c.inProxies(ip)
}

func (c *clientIP) inProxies(ip netip.Addr) bool { return middleware.InNetworks(c.proxies, ip) }

// onUnixSocket reports whether a request came over a unix socket. A server says so; without one, as in tests,
// there is only the address that such a peer has: "@".
func onUnixSocket(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return local.Network() == "unix"
	}
	return r.RemoteAddr == "@"
}
