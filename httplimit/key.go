package httplimit

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/trypema/trypema/internal/middleware"
)

// KeyFunc says who shares a limit: requests with the same key do. ok is false for a request that has none. It
// is called by many goroutines.
type KeyFunc func(*http.Request) (key string, ok bool)

// longKey is the length above which the key is not the header itself but its hash.
const longKey = 128

// ByIP is the address that the request comes from; for IPv6 the network of 64 bits, which is what a customer
// has. ByClientIP with IPv6Bits is for another length. Behind a proxy it is the address of the proxy: see
// ByForwardedIP. On a unix socket there is none: see ByClientIP.
func ByIP() KeyFunc {
	return func(r *http.Request) (string, bool) {
		ip, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && ip.Addr().Is4() { // as it stands there
			return r.RemoteAddr[:strings.LastIndexByte(r.RemoteAddr, ':')], true
		}
		addr, ok := middleware.ParseIP(r.RemoteAddr)
		if !ok {
			return "", false
		}
		return middleware.IPKey(addr), true
	}
}

// ByHeader is the value of a header, such as the name of a tenant that a gateway has set. Clients that reach
// the server can send any value: a trusted proxy must set the header, or the server must check it before. If
// the value is longer than 128 bytes, the key is its hash.
func ByHeader(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, bool) {
		v, ok := headerValue(r, name)
		if len(v) > longKey {
			v = middleware.Hash(v)
		}
		return v, ok
	}
}

// ByHashedHeader is the hash of a header's value, so that secrets, such as API keys and tokens, stand neither
// in memory for long nor in Redis.
func ByHashedHeader(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, bool) {
		v, ok := headerValue(r, name)
		if !ok {
			return "", false
		}
		return middleware.Hash(v), true
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

// ByPattern is the pattern by which mux routes the request, such as "GET /users/{id}": all users share it.
// Where the middleware is inside of a mux, so that the request has been routed, mux can be nil.
func ByPattern(mux *http.ServeMux) KeyFunc {
	return func(r *http.Request) (string, bool) {
		p := r.Pattern
		if mux != nil {
			_, p = mux.Handler(r)
		}
		return p, p != ""
	}
}

// Combine is the keys of several functions together, such as of the address and the pattern. A request has no
// key unless all of them find one.
func Combine(all ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, bool) {
		return middleware.Join(len(all), func(i int) (string, bool) { return all[i](r) })
	}
}
