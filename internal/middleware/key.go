// Package middleware is what httplimit and grpclimit have in common, who stand in front of servers and behind
// clients.
package middleware

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// Keyless is the key of all who have none. Nothing else here is it.
const Keyless = "\x00keyless"

// Hash is what stands for a secret.
func Hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// Join is n keys together; none if one of them is not to be had, or there are none.
func Join(n int, key func(i int) (string, bool)) (string, bool) {
	var b strings.Builder
	for i := range n {
		k, ok := key(i)
		if !ok {
			return "", false
		}
		b.WriteString(strconv.Itoa(len(k))) // so that no two lists of keys look alike
		b.WriteByte(':')
		b.WriteString(k)
	}
	return b.String(), n > 0
}

// ParseIP reads an address that may have a port, or stand in brackets. A zone is dropped, and IPv4 in IPv6 is
// IPv4.
func ParseIP(s string) (netip.Addr, bool) {
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

// SiteBits is the length of the IPv6 network that one customer has.
const SiteBits = 64

// IPKey is the address, or of one that is IPv6 the network of 64 bits, which is what a customer has.
func IPKey(ip netip.Addr) string { return NetworkKey(ip, SiteBits) }

// nat64 is the network in which translators from IPv4 place the addresses of their clients (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// NetworkKey is an IPv4 address, or the network of an IPv6 address that has a prefix of so many bits. A
// client behind a translator to IPv6 is its IPv4 address: otherwise the whole of IPv4 would be one network.
func NetworkKey(ip netip.Addr, bits int) string {
	if ip.Is6() {
		if nat64.Contains(ip) {
			b := ip.As16()
			return netip.AddrFrom4([4]byte(b[12:])).String()
		}
		if p, err := ip.Prefix(bits); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
