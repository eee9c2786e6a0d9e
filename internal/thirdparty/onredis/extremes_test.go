package onredis

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

// Running counts of a Hybrid key that is used in bursts, each in a window of its own, come to the end of what
// Lua can count, too, and begin again.
func TestHybridCountsWithoutEnd(t *testing.T) {
	bridge := rig.NewBridge(t, goredisconn.New(rig.GoRedis(t, []string{redisserver.Start(t).Addr()})))
	const large = 1 << 49
	o := trypema.Options{Window: time.Second, Bucket: time.Second, HardLimitFactor: 1}
	for _, suppressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := rig.OpenHybrid(t, bridge.Conn(), hybridlimit.Options{Options: rig.Patient(t, o)})
			l := rig.Strategy(p, suppressed)
			for i := range 24 {
				if _, err := l.AllowN(t.Context(), "k", trypema.Per(4*large, o.Window), large); err != nil {
					t.Fatalf("window %d: %v", i, err)
				}
				if err := p.Flush(t.Context()); err != nil {
					t.Fatalf("window %d: %v", i, err)
				}
				time.Sleep(o.Window + 200*time.Millisecond)
			}
		})
	}
}

// However much was declined, what is admitted is counted.
func TestAdmittedCountsBesideAnyDeclined(t *testing.T) {
	conn := goredisconn.New(rig.GoRedis(t, []string{redisserver.Start(t).Addr()}))
	o := trypema.Options{Window: time.Hour, HardLimitFactor: 1}
	hybrid := rig.OpenHybrid(t, conn, hybridlimit.Options{Options: rig.Patient(t, o)})
	local := fixture.Local(t, o)
	for name, l := range map[string]trypema.Limiter{
		"local": local.Suppressed(), "redis": rig.Open(t, conn, rig.Patient(t, o)).Suppressed(), "hybrid": hybrid.Suppressed(),
	} {
		rate, admitted := trypema.Per(100, o.Window), uint64(0)
		for i := range 300 {
			if i%10 == 0 {
				if d, err := l.AllowN(t.Context(), "k", rate, math.MaxUint64); err != nil || d.Allowed ||
					d.RetryAfter != trypema.Never {
					t.Fatalf("%s: %+v, %v", name, d, err)
				}
				if err := hybrid.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			d, err := l.Allow(t.Context(), "k", rate)
			if err != nil || d.Remaining > 100 {
				t.Fatalf("%s: %+v, %v", name, d, err)
			}
			if d.Allowed {
				admitted++
			}
		}
		u, err := l.Usage(t.Context(), "k", rate)
		if err != nil || admitted > 100 || admitted < 90 || u.Total-u.Declined != admitted ||
			u.Declined > math.MaxInt64 {
			t.Errorf("%s: %d admitted, want at most 100 and nearly that; %+v, %v", name, admitted, u, err)
		}
	}
}
