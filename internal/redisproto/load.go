package redisproto

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
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

// loadings are the runs on their way that have their script with them. Other runs of the script on the same
// node wait for the answer.
type loadings struct {
	mu       sync.Mutex                  // guards answered
	answered map[[2]string]chan struct{} // by script and node; closed when the run is answered
}

// begin returns what is closed when the loading of a script on a node ends. The caller must load it and call
// end if mine is set.
func (l *loadings) begin(script, node string) (answered <-chan struct{}, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := [2]string{script, node}
	if c := l.answered[key]; c != nil {
		return c, false
	}
	if l.answered == nil {
		l.answered = make(map[[2]string]chan struct{})
	}
	c := make(chan struct{})
	l.answered[key] = c
	return c, true
}

// end ends what begin began.
func (l *loadings) end(script, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := [2]string{script, node}
	close(l.answered[key])
	delete(l.answered, key)
}

// exchange makes one exchange and answers each run once. Each node has an exchange of its own, so that a node
// which does not answer does not keep another one from learning a script.
func (s *Server) exchange(
	ctx context.Context, p Script, keys, args [][]string, answer func(i int, reply []any, err error),
) {
	groups := s.byNode(keys)
	if len(groups) < 2 {
		only := ""
		for node := range groups {
			only = node
		}
		s.exchangeOn(ctx, only, p, keys, args, answer)
		return
	}
	var all sync.WaitGroup
	var bug atomic.Pointer[any] // a panic of answer, which is our own code
	for node, which := range groups {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					bug.Store(&p)
				}
			}()
			s.exchangeOn(ctx, node, p, pick(keys, which), pick(args, which), func(n int, reply []any, err error) {
				answer(which[n], reply, err)
			})
		})
	}
	all.Wait()
	if p := bug.Load(); p != nil {
		panic(*p)
	}
}

// byNode returns the runs on each node, or nil if the Conn does not tell them. A node that it does not know
// is "".
func (s *Server) byNode(keys [][]string) (groups map[string][]int) {
	var names []string
	_ = guard.Call(whose, func() {
		if node := s.Node(); node != nil {
			for _, k := range keys {
				names = append(names, node(k[0]))
			}
		}
	})
	if len(names) < len(keys) {
		return nil
	}
	groups = make(map[string][]int)
	for i, name := range names {
		groups[name] = append(groups[name], i)
	}
	return groups
}

// exchangeOn is exchange on one node.
//
// A node that does not know the script executes nothing, so the runs it has refused are sent again. The first
// of them is sent with the script (EVAL), unless another exchange is doing so. The others wait for the answer
// and are then sent as before (EVALSHA). So a node is sent the script about once, however many runs miss it.
// A run that has waited for loadTimeout, or was refused loadTries times, is sent with the script.
func (s *Server) exchangeOn(
	ctx context.Context, node string, p Script, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	refused := s.sendNamed(ctx, p, keys, args, nil, answer)
	if len(refused) == 0 {
		return
	}
	timeout := time.NewTimer(loadTimeout)
	defer timeout.Stop()
	late := false
	whole := Script{Source: p.Source}
	for try := 1; len(refused) > 0; try++ {
		if late || try == loadTries {
			s.send(ctx, whole, pick(keys, refused), pick(args, refused), func(n int, reply []any, err error) {
				answer(refused[n], reply, err)
			})
			return
		}
		answered, mine := s.loading.begin(p.SHA1, node)
		if mine {
			first := refused[0]
			refused = refused[1:]
			s.send(ctx, whole, keys[first:first+1], args[first:first+1], func(_ int, reply []any, err error) {
				s.loading.end(p.SHA1, node)
				answer(first, reply, err)
			})
		}
		select {
		case <-answered:
		case <-ctx.Done():
		case <-timeout.C:
			late = true
		}
		if len(refused) > 0 {
			refused = s.sendNamed(ctx, p, keys, args, refused, answer)
		}
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
