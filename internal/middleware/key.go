// Package middleware is what httplimit and grpclimit have in common, who stand in front of servers and behind
// clients.
package middleware

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
)

// keyless is the key of all calls that have none. No other call has it.
const keyless = "\x00keyless"

// Hash is what stands for a secret.
func Hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// Join makes one key of n. It returns false if a call does not have one of them, or if n is 0.
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

// ParseNetworks reads networks, such as 10.0.0.0/8, or single addresses. Errors call the list by a name.
func ParseNetworks(name string, networks []string) ([]netip.Prefix, error) {
	all := make([]netip.Prefix, 0, len(networks))
	for i, s := range networks {
		bad := func(rule string) error {
			return invalid.Errorf(trypema.ErrInvalidOptions, "%s[%d] is %q; it must %s", name, i, s, rule)
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			ip, err := netip.ParseAddr(s)
			if err != nil || ip.Zone() != "" {
				return nil, bad("be a network such as 10.0.0.0/8, or an address")
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 { // addresses are compared as IPv4
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.Bits() == 0 {
			return nil, bad("not have every address in it")
		}
		if p != p.Masked() {
			return nil, bad("be a network: " + p.Masked().String() + " is one")
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "%s is empty; it must name at least one", name)
	}
	return all, nil
}

// InNetworks reports whether an address is in one of the networks.
func InNetworks(networks []netip.Prefix, ip netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

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
