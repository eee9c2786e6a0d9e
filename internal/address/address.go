// Package address tells callers apart by their addresses.
package address

import (
	"net/netip"
	"strings"
)

// Parse reads an address that may have a port, or stand in brackets. A zone is dropped, and IPv4 in IPv6 is IPv4.
func Parse(s string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddrPort(s); err == nil {
		return clean(ip.Addr()), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	ip, err := netip.ParseAddr(s)
	return clean(ip), err == nil
}

func clean(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// Key is the address, or of one that is IPv6 the network of 64 bits, which is what a customer has.
func Key(ip netip.Addr) string {
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
