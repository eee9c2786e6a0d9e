package grpclimit

import (
	"context"
	"net/netip"
	"slices"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// KeyFunc says who shares a limit: calls with the same key do. ok is false for a call that has none. It is
// called by many goroutines.
type KeyFunc func(ctx context.Context, method string) (key string, ok bool)

// ByPeer is the address at the other end of the connection; of IPv6 the network of 64 bits, which is what a
// customer has. ByPeerNetwork is for another length.
func ByPeer() KeyFunc { return byPeer(middleware.SiteBits) }

// ByPeerNetwork is ByPeer with another length of the prefix that the IPv6 addresses of one client have in
// common: from 1 to 128 bits. A provider that gives customers more than 64 gives 56 or 48. The error wraps
// trypema.ErrInvalidOptions.
func ByPeerNetwork(ipv6Bits int) (KeyFunc, error) {
	if ipv6Bits < 1 || ipv6Bits > 128 {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"grpclimit.ByPeerNetwork: ipv6Bits is %d; it must be from 1 to 128", ipv6Bits)
	}
	return byPeer(ipv6Bits), nil
}

func byPeer(bits int) KeyFunc {
	return func(ctx context.Context, _ string) (string, bool) {
		ip, ok := peerIP(ctx)
		if !ok {
			return "", false
		}
		return middleware.NetworkKey(ip, bits), true
	}
}

// peerIP is the address at the other end of the connection, if it has one.
func peerIP(ctx context.Context) (netip.Addr, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}, false
	}
	return middleware.ParseIP(p.Addr.String())
}

// SkipNetworks is for Skip of Options: it reports whether the peer is in one of the networks, such as
// 10.0.0.0/8, 2001:db8::/32, or a single address. Behind a proxy the peer is the proxy. The error wraps
// trypema.ErrInvalidOptions and names the network; all of IPv4 or IPv6 is none, as it would skip everyone.
func SkipNetworks(networks ...string) (func(ctx context.Context, method string) bool, error) {
	all, err := middleware.ParseNetworks("grpclimit.SkipNetworks: networks", networks)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _ string) bool {
		ip, ok := peerIP(ctx)
		return ok && middleware.InNetworks(all, ip)
	}, nil
}

// ByMethod is the method, so that all callers of it share a limit.
func ByMethod() KeyFunc {
	return func(_ context.Context, method string) (string, bool) { return method, method != "" }
}

// ByMetadata is the hash of the first value of incoming metadata, such as a token, which so does not stand in
// Redis. Clients can send any value: the server must check it before.
func ByMetadata(name string) KeyFunc {
	return func(ctx context.Context, _ string) (string, bool) {
		values := metadata.ValueFromIncomingContext(ctx, name)
		if len(values) == 0 || values[0] == "" {
			return "", false
		}
		return middleware.Hash(values[0]), true
	}
}

// Combine is the keys of several functions together, such as of the peer and the method. A call has no key
// unless all of them find one; one that is nil finds none.
func Combine(all ...KeyFunc) KeyFunc {
	all = slices.Clone(all)
	return func(ctx context.Context, method string) (string, bool) {
		return middleware.Join(len(all), func(i int) (string, bool) {
			if all[i] == nil {
				return "", false
			}
			return all[i](ctx, method)
		})
	}
}
