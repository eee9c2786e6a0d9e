package rig

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Header is what the window of a key says of itself in Redis. internal/redisproto/lua/load.lua has the
// layout.
type Header struct {
	// all that was admitted since the key began, or since it was idle for a window; of Hybrid: since it began
	Counted  uint64
	Gone     uint64 // of that, what has expired
	Declined uint64 // in the window
	Leased   uint64 // by all holders
}

// Live is what the window holds.
func (h Header) Live() uint64 { return h.Counted - h.Gone }

// ReadHeader reads the window of a key of the kind. Of a key that is not there, all is 0.
func ReadHeader(ctx context.Context, c redis.Cmdable, k Kind, name string) (h Header, err error) {
	b, err := c.Get(ctx, name).Bytes()
	if errors.Is(err, redis.Nil) {
		return h, nil
	}
	least := map[Kind]int{{}: 72, {Suppressed: true}: 104, {Hybrid: true}: 120, {Hybrid: true, Suppressed: true}: 120}[k]
	if err != nil || len(b) < least {
		return h, fmt.Errorf("%s holds %d bytes, %w", name, len(b), err)
	}
	number := func(at int) (n uint64) {
		for i := 6; i >= 0; i-- {
			n = n<<8 | uint64(b[at+i])
		}
		return n
	}
	h = Header{Counted: number(22), Gone: number(7)}
	if k.Hybrid || k.Suppressed {
		h.Declined = number(29) - number(79)
	}
	if k.Hybrid {
		h.Leased = number(104)
	}
	return h, nil
}
