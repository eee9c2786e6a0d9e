package onredis

import (
	"context"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redislimit"
)

// BenchmarkMulti is three limits at once beside one, one call at a time and many at once.
func BenchmarkMulti(b *testing.B) {
	client := redisserver.Start(b).Client()
	defer func() { _ = client.Close() }()
	p, err := redislimit.New(goredisconn.New(client), redislimit.Options{Timeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	limits := []trypema.Limit{
		{Rate: trypema.PerSecond(1e6), Window: time.Second},
		{Rate: trypema.PerSecond(1e6), Window: time.Minute},
		{Rate: trypema.PerSecond(1e6), Window: time.Hour},
	}
	for _, n := range []int{1, 3} {
		m, err := p.Bind(trypema.StrategyAbsolute, limits[:n]...)
		if err != nil {
			b.Fatal(err)
		}
		single := func(ctx context.Context) (trypema.Decision, error) { return m.Allow(ctx, "k") }
		if n == 1 {
			l := p.Absolute()
			single = func(ctx context.Context) (trypema.Decision, error) { return l.Allow(ctx, "k", limits[0].Rate) }
		}
		call := func(b *testing.B) {
			if d, err := single(b.Context()); err != nil || !d.Allowed || d.Fallback {
				b.Fatal(d, err)
			}
		}
		name := map[int]string{1: "one", 3: "three"}[n]
		b.Run("alone/"+name, func(b *testing.B) {
			for b.Loop() {
				call(b)
			}
		})
		b.Run("hot/"+name, func(b *testing.B) {
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b)
				}
			})
		})
	}
}
