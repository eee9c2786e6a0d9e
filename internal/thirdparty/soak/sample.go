package main

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// sample is how things stood at an instant, and went since the one before.
type sample struct {
	Seconds    float64      `json:"seconds"` // since the beginning
	Excused    bool         `json:"excused"` // there was a fault, or the machine stood still
	Heap       float64      `json:"heap_mb"` // after a collection
	RSS        float64      `json:"rss_mb"`  // 0 where the system does not tell
	Goroutines float64      `json:"goroutines"`
	LocalKeys  float64      `json:"local_keys"`
	HybridKeys float64      `json:"hybrid_keys"`
	RedisMB    float64      `json:"redis_mb"` // 0 while it does not answer
	RedisKeys  float64      `json:"redis_keys"`
	Calls      float64      `json:"calls_per_second"`
	Lanes      []laneSample `json:"lanes"`
}

type laneSample struct {
	P50      float64 `json:"p50_us"`
	P999     float64 `json:"p999_us"`
	Hot      float64 `json:"hot_admitted_of_limit"`     // per second
	Most     float64 `json:"most_in_a_window_of_bound"` // of the fullest key
	Fallback float64 `json:"fallbacks"`                 // calls
}

// sampler takes samples of a fleet and its server.
type sampler struct {
	*fleet
	server  *redis.Client
	began   time.Time
	last    time.Time
	offered []int64
	strange []int
}

func (s *sampler) take(paused bool) sample {
	now := time.Now()
	took := now.Sub(s.last).Seconds()
	s.last = now
	out := sample{Seconds: now.Sub(s.began).Seconds()}
	if s.offered == nil {
		s.offered, s.strange = make([]int64, len(s.lanes)), make([]int, len(s.lanes))
	}
	for i, l := range s.lanes {
		l.mu.Lock()
		h, strange := l.latencies, l.fallbacks
		l.latencies = histogram()
		l.mu.Unlock()
		offered := l.offered.Load()
		one := laneSample{
			P50: float64(h.ValueAtPercentile(50)) / 1e3, P999: float64(h.ValueAtPercentile(99.9)) / 1e3,
			Hot:      float64(l.used.Swap(0)) / took / hotCapacity,
			Fallback: float64(strange - s.strange[i]),
		}
		out.Calls += float64(offered-s.offered[i]) / took
		s.offered[i], s.strange[i] = offered, strange
		for _, w := range l.watches {
			_, lately := w.fullest()
			one.Most = max(one.Most, float64(lately)/float64(w.bound))
		}
		if l.provider == "hybrid" {
			out.HybridKeys += float64(s.meter(l).Keys)
		}
		out.Lanes = append(out.Lanes, one)
	}
	out.Goroutines, out.LocalKeys = float64(runtime.NumGoroutine()), float64(s.local.Len())
	out.Heap, out.RSS = heap()/mega, residentMB()
	if !paused {
		out.RedisMB, out.RedisKeys = s.redis()
	}
	return out
}

var usedMemory = regexp.MustCompile(`(?m)^used_memory:(\d+)`)

// redis returns the megabytes that the server uses, and its number of keys; or 0 and -1.
func (s *sampler) redis() (mb, keys float64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	info, err := s.server.Info(ctx, "memory").Result()
	n, err2 := s.server.DBSize(ctx).Result()
	m := usedMemory.FindStringSubmatch(info)
	if err != nil || err2 != nil || m == nil {
		return 0, -1
	}
	mb, _ = strconv.ParseFloat(m[1], 64)
	return mb / mega, float64(n)
}

// residentMB is the memory that the system has given to this process.
func residentMB() float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(statm))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / mega
}
