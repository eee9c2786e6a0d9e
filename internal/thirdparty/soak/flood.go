package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"github.com/trypema/trypema"
)

// flood sends new keys to a Local as fast as it takes them, half of them with a bound on their number, and a
// key in use among them. It returns the rules that were kept, or not.
func flood(ctx context.Context, keys int64, tell func(string)) (rules []rule) {
	for _, bound := range []int{0, 100_000} {
		l, err := trypema.NewLocal(trypema.Options{Window: 100 * time.Millisecond, MaxKeys: bound})
		if err != nil {
			panic(err) // of options that are constant
		}
		before := heap()
		victim := &watch{key: "victim", window: 100 * time.Millisecond, bound: 100}
		most, lived := 0, int64(0) // the most keys held, and the most that came in two windows
		began := time.Now()
		var mark time.Time
		var since int64
		name := make([]byte, 8)
		for i := int64(0); i < keys/2 && ctx.Err() == nil; i++ {
			binary.BigEndian.PutUint64(name, uint64(i))
			_, _ = l.Absolute().Allow(ctx, string(name), 100)
			if i%100 != 0 {
				continue
			}
			from := time.Now()
			if d, err := l.Absolute().Allow(ctx, "victim", 1000); err == nil && d.Allowed {
				victim.add(from, time.Now(), 1)
			}
			most = max(most, l.Len())
			if from.Sub(mark) > 220*time.Millisecond {
				victim.judge(from)
				lived = max(lived, i-since)
				mark, since = from, i
			}
		}
		victim.judge(time.Now())
		took := time.Since(began)
		tell(fmt.Sprintf("%d new keys to Local in %v, at most %d held (MaxKeys %d)", keys/2, took.Round(time.Millisecond), most, bound))
		where := fmt.Sprintf("Local, MaxKeys %d", bound)
		allowed := float64(bound)
		if bound == 0 { // those of two windows and buckets, while each new key looks at two old ones
			allowed = 2 * float64(max(lived, 100_000))
		}
		fullest, _ := victim.fullest()
		rules = append(rules,
			judge("keys held in a flood", where, float64(most), "≤", allowed),
			judge("most in any window, in a flood", where, float64(fullest), "≤", float64(victim.bound)))
		_ = l.Close()
		rules = append(rules, judge("heap after a flood, MB more", where, (heap()-before)/mega, "≤", 4))
	}
	return rules
}

const mega = 1 << 20

// heap returns the bytes in use.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
