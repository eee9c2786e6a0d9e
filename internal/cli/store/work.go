package store

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Work is what a server did in some time, by its own count, all nodes of a Cluster together.
type Work struct {
	Commands time.Duration // time in the commands that limiters use
	CPU      time.Duration // of the processor, in all
	Memory   int64         // bytes by which it grew
}

// Add is both together.
func (w Work) Add(o Work) Work {
	return Work{Commands: w.Commands + o.Commands, CPU: w.CPU + o.CPU, Memory: w.Memory + o.Memory}
}

// limiting are the commands that limiters use, as INFO spells them. What a script calls is part of its own
// time.
var limiting = []string{"evalsha", "eval", "cl.throttle"}

// Watch has the server's work counted from now on. The function that it returns tells how much it is by then:
// nil where the server does not tell, as the embedded one, or one that was started again meanwhile.
func (s *Server) Watch(ctx context.Context) func() *Work {
	before, known := s.work(ctx)
	return func() *Work {
		w, still := s.work(ctx)
		w.Commands, w.CPU, w.Memory = w.Commands-before.Commands, w.CPU-before.CPU, w.Memory-before.Memory
		if !known || !still || w.Commands < 0 || w.CPU < 0 {
			return nil
		}
		return &w
	}
}

// work is what the server has done since it was started, and all the memory it uses. It reports whether it
// told.
func (s *Server) work(ctx context.Context) (Work, bool) {
	if s == nil || s.embedded != nil {
		return Work{}, false
	}
	var mu sync.Mutex // guards sum and known
	var sum Work
	known := true
	ask := func(ctx context.Context, node *redis.Client) error {
		w, ok := parseWork(fields(node.Info(ctx, "all").Val()))
		mu.Lock()
		defer mu.Unlock()
		sum, known = sum.Add(w), known && ok
		return nil
	}
	switch c := s.own.(type) {
	case *redis.ClusterClient:
		known = c.ForEachMaster(ctx, ask) == nil && known
	case *redis.Client:
		_ = ask(ctx, c) // always nil
	}
	return sum, known
}

func parseWork(info map[string]string) (w Work, ok bool) {
	ok = true
	number := func(text string) float64 {
		x, err := strconv.ParseFloat(text, 64)
		ok = ok && err == nil
		return x
	}
	w.CPU = time.Duration((number(info["used_cpu_user"]) + number(info["used_cpu_sys"])) * float64(time.Second))
	w.Memory = int64(number(info["used_memory"]))
	for _, command := range limiting {
		if line, used := info["cmdstat_"+command]; used {
			_, after, _ := strings.Cut(line, "usec=")
			usec, _, _ := strings.Cut(after, ",")
			w.Commands += time.Duration(number(usec)) * time.Microsecond
		}
	}
	return w, ok
}
