package onredis

import (
	"context"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redislimit"
)

// BenchmarkMulti is three limits at once beside one, one call at a time and many at once. It reports how much
// of the time is the server's.
func BenchmarkMulti(b *testing.B) {
	client := redisserver.Start(b).Client()
	defer func() { _ = client.Close() }()
	p := fixture.Redis(b, goredisconn.New(client), redislimit.Options{Timeout: 5 * time.Second})
	limits := []trypema.Limit{
		{Rate: trypema.PerSecond(1e6), Window: time.Second},
		{Rate: trypema.PerSecond(1e6), Window: time.Minute},
		{Rate: trypema.PerSecond(1e6), Window: time.Hour},
	}
	for _, n := range []int{1, 3} {
		m := fixture.Bind(b, p, trypema.StrategyAbsolute, limits[:n]...)
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
		// spent returns for how long the server has run scripts.
		spent := func(b *testing.B) (sum float64) {
			info, err := client.Info(b.Context(), "commandstats").Result()
			if err != nil {
				b.Fatal(err)
			}
			for _, usec := range regexp.MustCompile(`cmdstat_evalsha:.*?usec=(\d+)`).FindAllStringSubmatch(info, -1) {
				n, _ := strconv.ParseFloat(usec[1], 64)
				sum += n
			}
			return sum
		}
		name := map[int]string{1: "one", 3: "three"}[n]
		b.Run("alone/"+name, func(b *testing.B) {
			before := spent(b)
			for b.Loop() {
				call(b)
			}
			b.ReportMetric(1000*(spent(b)-before)/float64(b.N), "server-ns/op")
		})
		b.Run("hot/"+name, func(b *testing.B) {
			before := spent(b)
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b)
				}
			})
			b.ReportMetric(1000*(spent(b)-before)/float64(b.N), "server-ns/op")
		})
	}
}
