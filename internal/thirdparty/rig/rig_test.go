package rig

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestFewest(t *testing.T) {
	if n := Fewest(nil, nil, time.Second); n != math.MaxUint64 {
		t.Errorf("%d of nothing", n)
	}
	first := explore.Seed(t)
	for seed := first; seed < first+uint64(explore.Runs(500, 20_000)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		start := time.Now()
		log := func() (log []anywindow.Admission) {
			for range rng.IntN(30) {
				from := start.Add(time.Duration(rng.IntN(50)))
				log = append(log,
					anywindow.Admission{From: from, To: from.Add(time.Duration(rng.IntN(10))), Cost: rng.Uint64N(4)})
			}
			return log
		}
		admitted, denied, before := log(), log(), time.Duration(rng.IntN(20))
		want := uint64(math.MaxUint64)
		for _, d := range denied {
			var sum uint64
			for _, a := range admitted {
				if !a.From.After(d.To) && a.To.After(d.From.Add(-before)) {
					sum += a.Cost
				}
			}
			want = min(want, sum)
		}
		if got := Fewest(admitted, denied, before); got != want {
			t.Fatalf("seed %d: %d, want %d", seed, got, want)
		}
	}
}

// Over a bridge, a limiter on a real server lives in the time of its bubble: an hour passes at once, and no
// exchange takes any time.
func TestBridge(t *testing.T) {
	bridge := NewBridge(t, Adapters[0].Dial(t, []string{redisserver.Start(t).Addr()}))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := Open(t, bridge.Conn(), Patient(t, trypema.Options{Window: time.Hour})).Absolute()
		for i := range 5 {
			d, err := l.AllowN(t.Context(), "k", trypema.PerHour(10), 10)
			if err != nil || !d.Allowed {
				t.Fatalf("hour %d: %+v, %v", i, d, err)
			}
			if d, err = l.Allow(t.Context(), "k", trypema.PerHour(10)); err != nil || d.Allowed ||
				d.RetryAfter != time.Hour {
				t.Fatalf("hour %d: %+v, %v", i, d, err)
			}
			time.Sleep(d.RetryAfter)
		}
		if took := time.Since(began); took != 5*time.Hour {
			t.Errorf("it took %v", took)
		}
	})
}
