package httplimit

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/front"
	"github.com/trypema/trypema/internal/invalid"
)

// KeyFunc says who shares a limit: requests with the same key do. ok is false for a request that has none. It is called by many
// goroutines.
type KeyFunc func(*http.Request) (key string, ok bool)

// longKey is from where on a header is no key as it is: its hash is.
const longKey = 128

// ByIP is the address that the request comes from; for IPv6 the network of 64 bits, which is what a customer has. Behind a proxy it
// is that of the proxy: see ByForwardedIP.
func ByIP() KeyFunc {
	return func(r *http.Request) (string, bool) {
		ip, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && ip.Addr().Is4() { // as it stands there
			return r.RemoteAddr[:strings.LastIndexByte(r.RemoteAddr, ':')], true
		}
		addr, ok := remoteIP(r)
		if !ok {
			return "", false
		}
		return front.IPKey(addr), true
	}
}

// maxHops is how many addresses of a header are looked at.
const maxHops = 32

// ByForwardedIP is the address of the client as the proxies that are named say it, in a header with a list of addresses, such as
// X-Forwarded-For, or with one, such as X-Real-IP. A header from anybody else is not believed. The list is read from its end, where the nearest proxy
// writes: the first address that is no proxy's is the client's. Where the list has nothing that is an address, the last proxy that
// was seen stands for its clients.
//
// The error wraps trypema.ErrInvalidOptions: without a header or a proxy it could not tell anybody apart.
func ByForwardedIP(header string, proxies ...netip.Prefix) (KeyFunc, error) {
	if header == "" || strings.ContainsAny(header, " \t\r\n:,") {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.ByForwardedIP: header is %q; it must be the name of one", header)
	}
	if len(proxies) == 0 {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.ByForwardedIP: proxies is empty; it must name the networks of proxies that set %s", header)
	}
	for _, p := range proxies {
		if !p.IsValid() {
			return nil, invalid.Errorf(trypema.ErrInvalidOptions, "httplimit.ByForwardedIP: a proxy is %v; it must be a network such as 10.0.0.0/8", p)
		}
	}
	name := http.CanonicalHeaderKey(header)
	proxies = append([]netip.Prefix(nil), proxies...)
	trusted := func(ip netip.Addr) bool {
		for _, p := range proxies {
			if p.Contains(ip) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) (string, bool) {
		ip, ok := remoteIP(r)
		if !ok {
			return "", false
		}
		hops := 0
		lines := r.Header[name]
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more && trusted(ip); {
				var item string
				at := strings.LastIndexByte(rest, ',')
				item, more = rest[at+1:], at >= 0
				rest = rest[:max(at, 0)]
				hop, valid := front.ParseIP(strings.TrimSpace(item))
				if hops++; !valid || hops > maxHops {
					return front.IPKey(ip), true
				}
				ip = hop
			}
		}
		return front.IPKey(ip), true
	}, nil
}

// remoteIP is the address at the other end of the connection.
func remoteIP(r *http.Request) (netip.Addr, bool) { return front.ParseIP(r.RemoteAddr) }

// ByHeader is the value of a header, such as the name of a tenant that a gateway has set. Whoever can reach the server can send any
// value: it must be set by somebody who is trusted, or be checked before. Of a value longer than 128 bytes it is the hash.
func ByHeader(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, bool) {
		v, ok := headerValue(r, name)
		if len(v) > longKey {
			v = front.Hash(v)
		}
		return v, ok
	}
}

// ByHashedHeader is the hash of a header's value, so that secrets, such as API keys and tokens, stand neither in memory for long nor in Redis.
func ByHashedHeader(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, bool) {
		v, ok := headerValue(r, name)
		if !ok {
			return "", false
		}
		return front.Hash(v), true
	}
}

// headerValue is the first value of a header, if it has one that is not empty.
func headerValue(r *http.Request, name string) (string, bool) {
	values := r.Header[name]
	if len(values) == 0 {
		return "", false
	}
	v := strings.TrimSpace(values[0])
	return v, v != ""
}

// ByPattern is the pattern by which mux routes the request, such as "GET /users/{id}": all users share it. Where the middleware is
// inside of a mux, so that the request has been routed, mux can be nil.
func ByPattern(mux *http.ServeMux) KeyFunc {
	return func(r *http.Request) (string, bool) {
		p := r.Pattern
		if mux != nil {
			_, p = mux.Handler(r)
		}
		return p, p != ""
	}
}

// Combine is the keys of several functions together, such as of the address and the pattern. A request has no key unless all of
// them find one.
func Combine(all ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, bool) {
		return front.Join(len(all), func(i int) (string, bool) { return all[i](r) })
	}
}
