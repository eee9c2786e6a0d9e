package measure

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema/internal/bench/peer"
)

// Floor is what the parts cost that no limiter can do without, on this machine: below their sum nobody can
// come.
type Floor struct {
	Part string    `json:"part"`
	Cost []float64 `json:"ns"` // each time that it was measured
}

// Reach is how long a load takes that depends on the one before, at random places of so much memory.
type Reach struct {
	Bytes int       `json:"bytes"`
	Cost  []float64 `json:"ns"`
}

// Floors is all of that.
type Floors struct {
	Parts   []Floor `json:"parts"`
	Reaches []Reach `json:"reaches"`
}

const (
	floorTime = 20 * time.Millisecond // for each measurement
	floorStep = 1000                  // operations between two looks at the clock
	cacheLine = 64
)

// floorPart is timed as long as floorTime takes, by one goroutine, or by one on each processor.
type floorPart struct {
	name string
	all  bool
	do   func(g int) // floorStep times, by goroutine g
}

func floorParts() []floorPart {
	base, seed, key := time.Now(), maphash.MakeSeed(), "user:00012345"
	var shared, lone atomic.Uint64
	var sharedLock, loneLock sync.Mutex
	sinks := make([]struct {
		n uint64
		_ [2*cacheLine - 8]byte
	}, runtime.GOMAXPROCS(0)) // nothing is left out as nobody wants it
	lock := func(m *sync.Mutex) func(int) {
		n := 0
		return func(int) {
			for range floorStep {
				m.Lock()
				n++
				m.Unlock()
			}
		}
	}
	add := func(a *atomic.Uint64) func(int) {
		return func(int) {
			for range floorStep {
				a.Add(1)
			}
		}
	}
	return []floorPart{
		{"a clock read", false, func(g int) {
			for range floorStep {
				sinks[g].n += uint64(time.Since(base))
			}
		}},
		{"the hash of a key", false, func(g int) {
			for range floorStep {
				sinks[g].n += maphash.String(seed, key)
			}
		}},
		{"an atomic addition, alone", false, add(&lone)},
		{"the same, on every processor at once", true, add(&shared)},
		{"a mutex around an addition, alone", false, lock(&loneLock)},
		{"the same, on every processor at once", true, lock(&sharedLock)},
	}
}

// Floors measures each part so many times, in turn, and the workload of the command without any limiter.
func (c *Command) Floors(
	ctx context.Context, times int, progress func(part float64, doing string),
) (out *Floors, err error) {
	p, _, err := c.prepare(ctx, c.Window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.limit.Server.Close()) }()
	out = new(Floors)
	parts := floorParts()
	for _, part := range parts {
		out.Parts = append(out.Parts, Floor{Part: part.name})
	}
	out.Parts = append(out.Parts, Floor{Part: "the workload of " + c.Keys + " keys, with no limiter"})
	last := len(parts)
	for bytes := 16 << 10; bytes <= 256<<20; bytes *= 2 {
		out.Reaches = append(out.Reaches, Reach{Bytes: bytes})
	}
	chase := make(lines, out.Reaches[len(out.Reaches)-1].Bytes/cacheLine)
	nobody := p.session("no limiter", peer.Limiter{Allow: func(key string) (bool, error) { return key != "", nil }})
	for k := range times {
		progress(float64(k)/float64(times), "")
		for i, part := range parts {
			goroutines := 1
			if part.all {
				goroutines = runtime.GOMAXPROCS(0)
			}
			out.Parts[i].Cost = append(out.Parts[i].Cost, timed(goroutines, part.do))
		}
		r, err := nobody.drive(ctx, 5*floorTime, func(float64) {})
		if err != nil {
			return nil, err
		}
		cost := float64(r.elapsed) * float64(len(nobody.workers)) / float64(r.ops)
		out.Parts[last].Cost = append(out.Parts[last].Cost, cost)
		for i := range out.Reaches {
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			out.Reaches[i].Cost = append(out.Reaches[i].Cost, chase.walk(out.Reaches[i].Bytes/cacheLine))
		}
	}
	return out, nil
}

// timed is how many nanoseconds an operation takes, where do makes floorStep of them.
func timed(goroutines int, do func(g int)) float64 {
	var wg sync.WaitGroup
	costs := make([]float64, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			began, n := time.Now(), 0
			for time.Since(began) < floorTime {
				do(g)
				n += floorStep
			}
			costs[g] = float64(time.Since(began)) / float64(n)
		})
	}
	wg.Wait()
	return Median(costs)
}

// lines is memory in which each cache line says where to go on.
type lines [][cacheLine / 4]uint32

// walk goes once through the first n lines in an order that no prefetcher guesses, so that they are where
// they would be, and then takes the time of going on.
func (l lines) walk(n int) float64 {
	order := rand.New(rand.NewPCG(3, uint64(n))).Perm(n)
	for i, at := range order {
		l[at][0] = uint32(order[(i+1)%n])
	}
	at := uint32(0)
	for range min(n, 1<<18) {
		at = l[at][0]
	}
	began, steps := time.Now(), 0
	for time.Since(began) < floorTime/4 {
		for range floorStep {
			at = l[at][0]
		}
		steps += floorStep
	}
	took := time.Since(began)
	runtime.KeepAlive(at)
	return float64(took) / float64(steps)
}
