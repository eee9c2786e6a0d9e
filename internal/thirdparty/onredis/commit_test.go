package onredis

import (
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
)

// A reservation in the oldest group is committed at less, or at more. When that group expires, it takes as
// much with it as it then held, and others keep theirs.
func TestCommitInTheOldestGroup(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	for _, strategy := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
		for _, cost := range []uint64{0, 2, 30} {
			clock, conn := rig.NewClock(rig.Adapters[0].Dial(t, []string{server.Addr()}))
			p := rig.Open(t, conn, rig.Patient(t, trypema.Options{}))
			m := fixture.Bind(t, p, strategy, trypema.Limit{Rate: trypema.Per(1000, 10*time.Second), Window: 10 * time.Second})
			key := rig.Unique("oldest")
			r, err := m.Reserve(t.Context(), key, 10, 0)
			if err != nil || !r.Allowed {
				t.Fatal(r, err)
			}
			for _, n := range []uint64{5, 3} {
				clock.Advance(time.Second.Microseconds())
				if d, err := m.AllowN(t.Context(), key, n); err != nil || !d.Allowed {
					t.Fatal(d, err)
				}
			}
			if err := r.Commit(t.Context(), cost); err != nil {
				t.Fatal(err)
			}
			for i, want := range []uint64{cost + 8, 8, 3, 0} { // at seconds 2, 10.5, 11.5 and 12.5
				if u, err := m.Usage(t.Context(), key); err != nil || u[0].Total != want {
					t.Errorf("%v, committed at %d: %+v in the window, want %d; %v", strategy, cost, u, want, err)
				}
				later := time.Second
				if i == 0 {
					later = 8500 * time.Millisecond
				}
				clock.Advance(later.Microseconds())
			}
		}
	}
}
