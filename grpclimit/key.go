package grpclimit

import (
	"context"
	"slices"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/trypema/trypema/internal/middleware"
)

// KeyFunc says who shares a limit: calls with the same key do. ok is false for a call that has none. It is
// called by many goroutines.
type KeyFunc func(ctx context.Context, method string) (key string, ok bool)

// ByPeer is the address at the other end of the connection; of IPv6 the network of 64 bits, which is what a
// customer has.
func ByPeer() KeyFunc {
	return func(ctx context.Context, _ string) (string, bool) {
		p, ok := peer.FromContext(ctx)
		if !ok || p.Addr == nil {
			return "", false
		}
		ip, ok := middleware.ParseIP(p.Addr.String())
		if !ok {
			return "", false
		}
		return middleware.IPKey(ip), true
	}
}

// ByMethod is the method, so that all callers of it share a limit.
func ByMethod() KeyFunc {
	return func(_ context.Context, method string) (string, bool) { return method, method != "" }
}

// ByMetadata is the hash of the first value of incoming metadata, such as a token, which so does not stand in
// Redis. Whoever can reach the server can send any value: it must be checked before.
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
