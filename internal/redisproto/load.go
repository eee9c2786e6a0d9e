package redisproto

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/guard"
)

const (
	// loadTimeout is how long refused runs wait for another exchange that is loading their script.
	loadTimeout = time.Second
	// loadTries is how often a run is refused before it is sent with its script. Where nodes have no
	// names, one of them learns the script at each try.
	loadTries = 8
)

// loading is a run on its way that has its script with it. Other runs of the script on the same node wait for
// its answer.
type loading struct {
	script, node string        // SHA-1, and what the Conn calls the node
	answered     chan struct{} // closed when the run is answered
}

// loadings are those that have no answer yet.
type loadings struct {
	mu   sync.Mutex // guards them
	them map[[2]string]*loading
}

// exchange makes one exchange and answers each run once.
//
// A node that does not know the script executes nothing, so the runs it has refused are sent again. On each
// node the first of them is sent with the script (EVAL), unless another exchange is doing so. The others wait
// for the answer and are then sent as before (EVALSHA). So a node is sent the script about once, however many
// runs miss it. A run that has waited for loadTimeout, or was refused loadTries times, is sent with the
// script.
func (s *Server) exchange(
	ctx context.Context, p Script, keys, args [][]string, answer func(i int, reply []any, err error),
) {
	refused := s.sendNamed(ctx, p, keys, args, nil, answer)
	if len(refused) == 0 {
		return
	}
	timeout := time.NewTimer(loadTimeout)
	defer timeout.Stop()
	late := false
	for try := 1; len(refused) > 0; try++ {
		first, others, waitFor := refused, []int(nil), []*loading(nil)
		if try < loadTries && !late {
			first, others, waitFor = s.loading.divide(p.SHA1, s.nodes(keys, refused), refused)
		}
		s.sendWhole(ctx, p, keys, args, first, waitFor, answer)
		for _, l := range waitFor {
			if late {
				break
			}
			select {
			case <-l.answered:
			case <-ctx.Done():
			case <-timeout.C:
				late = true
			}
		}
		if len(others) == 0 {
			return
		}
		refused = s.sendNamed(ctx, p, keys, args, others, answer)
	}
}

// sendNamed sends runs by the name of their script, and returns those that were refused. All runs are sent if
// which is nil.
func (s *Server) sendNamed(
	ctx context.Context, p Script, keys, args [][]string, which []int,
	answer func(i int, reply []any, err error),
) (refused []int) {
	if which != nil {
		keys, args = pick(keys, which), pick(args, which)
	}
	var mu sync.Mutex // guards refused
	s.send(ctx, p, keys, args, func(i int, reply []any, err error) {
		if which != nil {
			i = which[i]
		}
		if !isNoScript(err) {
			answer(i, reply, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, i)
	})
	return refused
}

// sendWhole sends runs with their script. The first of mine are those of the runs, and end with the
// answers.
func (s *Server) sendWhole(
	ctx context.Context, p Script, keys, args [][]string, which []int, mine []*loading,
	answer func(i int, reply []any, err error),
) {
	if len(which) == 0 {
		return
	}
	p.SHA1 = ""
	s.send(ctx, p, pick(keys, which), pick(args, which), func(n int, reply []any, err error) {
		if n < len(mine) {
			s.loading.end(mine[n])
		}
		answer(which[n], reply, err)
	})
}

// divide divides refused runs into those that are to be sent with the script, and others. It returns the
// loading of each of the former, and then those that the others wait for.
func (s *loadings) divide(script string, nodes []string, refused []int) (first, others []int, all []*loading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.them == nil {
		s.them = make(map[[2]string]*loading)
	}
	var waitFor []*loading
	for n, i := range refused {
		key := [2]string{script, nodes[n]}
		l := s.them[key]
		if l == nil {
			l = &loading{script: script, node: nodes[n], answered: make(chan struct{})}
			s.them[key] = l
			first, all = append(first, i), append(all, l)
			continue
		}
		others = append(others, i)
		waitFor = append(waitFor, l)
	}
	return first, others, append(all, waitFor...)
}

// end ends a loading.
func (s *loadings) end(l *loading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.them, [2]string{l.script, l.node})
	close(l.answered)
}

// nodes returns the nodes of runs, each "" if it is not known.
func (s *Server) nodes(keys [][]string, which []int) []string {
	names := make([]string, len(which))
	if node := s.Node(); node != nil {
		_ = guard.Call(whose, func() {
			for n, i := range which {
				names[n] = node(keys[i][0])
			}
		})
	}
	return names
}

// isNoScript reports whether an error says that a server does not know the script it was to run.
func isNoScript(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") }

// pick returns some of a list.
func pick(list [][]string, which []int) [][]string {
	some := make([][]string, len(which))
	for n, i := range which {
		some[n] = list[i]
	}
	return some
}
