package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/redislimit"
)

// leaving is a server that answers so many runs and then no more.
type leaving struct {
	*fakeredis.Server
	left atomic.Int64
}

func leavesAfter(runs int64) *leaving {
	l := &leaving{Server: fakeredis.New()}
	l.left.Store(runs)
	return l
}

func (l *leaving) Run(
	ctx context.Context, source, sha string, keys, args [][]string, answer func(int, []any, error),
) {
	if l.left.Add(-1) >= 0 {
		l.Server.Run(ctx, source, sha, keys, args, answer)
		return
	}
	for i := range keys {
		answer(i, nil, errors.New("connection refused"))
	}
}

// TestAllWhenRedisLeavesMeanwhile: a call of several providers has an answer, not an error, when one server
// goes away after it has reserved there: that of the failure policy, or no if another limit refuses.
func TestAllWhenRedisLeavesMeanwhile(t *testing.T) {
	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed} {
		for _, first := range []bool{false, true} { // the server that leaves has the first of the limits
			for _, full := range []bool{false, true} { // the other limit has no room
				t.Run(fmt.Sprintf("%v, first %v, full %v", policy, first, full), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { redisLeaves(t, policy, first, full) })
				})
			}
		}
	}
}

func redisLeaves(t *testing.T, policy redislimit.FailurePolicy, first, full bool) {
	ctx := context.Background()
	bound := func(c redislimit.Conn, name string) *trypema.Bound {
		p := fixture.Redis(t, c, redislimit.Options{OnFailure: policy})
		b := fixture.Bind(t, p, trypema.StrategyAbsolute, trypema.AtMost(3, time.Minute).Named(name))
		return b
	}
	server := leavesAfter(1)
	leaves, stays := bound(server, "leaves"), bound(fakeredis.New(), "stays")
	if full {
		if d, err := stays.AllowN(ctx, "k", 3); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
	}
	asks := []trypema.Ask{stays.Ask("k", 2), leaves.Ask("k", 2)}
	if first {
		asks[0], asks[1] = asks[1], asks[0]
	}
	d, err := trypema.All(ctx, asks...)
	admitted := !full && policy != redislimit.FailClosed
	if err != nil || d.Allowed != admitted || d.Fallback == full || full && d.RefusedBy != "stays" {
		t.Errorf("%+v, %v", d, err)
	}
	want := map[[2]bool]uint64{{true, false}: 2, {false, true}: 3}[[2]bool{admitted, full}]
	if u, err := stays.Usage(ctx, "k"); err != nil || u[0].Total != want {
		t.Errorf("the limit that stays: %+v, %v, want %d", u, err, want)
	}
	if d, err := leaves.AllowN(ctx, "k", 2); err != nil || d.Allowed != (policy == redislimit.FailOpen || policy == redislimit.FailLocal && full) {
		t.Errorf("by %v the next call: %+v, %v", policy, d, err)
	}
}

// TestAllWhenRedisOfHybridLeaves: what a lease has admitted stays admitted.
func TestAllWhenRedisOfHybridLeaves(t *testing.T) {
	for _, window := range []time.Duration{time.Second, time.Minute} { // it outlives a reservation of All, or does not
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			server := leavesAfter(1)
			h, err := hybridlimit.New(server, hybridlimit.Options{Options: redislimit.Options{OnFailure: redislimit.FailClosed}})
			if err != nil {
				t.Fatal(err)
			}
			b := fixture.Bind(t, h, trypema.StrategyAbsolute, trypema.AtMost(3, window))
			local := fixture.Local(t, trypema.Options{})
			other := fixture.Bind(t, local, trypema.StrategyAbsolute, trypema.AtMost(3, time.Minute))
			if d, err := trypema.All(ctx, b.Ask("k", 2), other.Ask("k", 2)); err != nil || !d.Allowed {
				t.Errorf("%v: %+v, %v", window, d, err)
			}
			if d, err := other.AllowN(ctx, "k", 2); err != nil || d.Allowed {
				t.Errorf("%v: the other limit: %+v, %v", window, d, err)
			}
			server.left.Store(1 << 30)
			time.Sleep(2 * time.Second)
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
