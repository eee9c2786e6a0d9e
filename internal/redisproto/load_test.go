package redisproto

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// forgetful is a Conn to nodes that do not know any script at first. The node of a key is its first letter.
type forgetful struct {
	unnamed  bool // the Conn does not know the nodes
	panics   bool // Node does
	forgets  bool // nodes do not keep a script
	hangs    func(eval bool, key string) bool
	returns  error         // what the script does, if it is an error
	trip     time.Duration // to a node and back
	resume   chan struct{} // ends what hangs
	mu       sync.Mutex    // guards what follows
	knows    map[string]bool
	executed map[string]int // by key
	evals    map[string]int // by node
}

func newForgetful() *forgetful {
	return &forgetful{
		trip: time.Millisecond, resume: make(chan struct{}),
		knows: make(map[string]bool), executed: make(map[string]int), evals: make(map[string]int),
	}
}

func (c *forgetful) OneServer() bool { return false }

func (c *forgetful) Node(key string) string {
	switch {
	case c.panics:
		panic("no table of slots")
	case c.unnamed:
		return ""
	}
	return key[:1]
}

func (c *forgetful) Run(
	ctx context.Context, script, sha1 string, keys, _ [][]string, answer func(int, []any, error),
) {
	time.Sleep(c.trip / 2)
	errs := make([]error, len(keys))
	for i := range keys {
		errs[i] = c.call(ctx, script, sha1, keys[i][0])
	}
	time.Sleep(c.trip / 2)
	for i := range keys {
		answer(i, []any{keys[i][0]}, errs[i])
	}
}

func (c *forgetful) call(ctx context.Context, script, sha1, key string) error {
	if c.hangs != nil && c.hangs(sha1 == "", key) {
		select {
		case <-c.resume:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	node := key[:1]
	if sha1 == "" {
		if script != "source" {
			return fmt.Errorf("ERR the script is %q", script)
		}
		c.evals[node]++
		c.knows[node] = !c.forgets
	} else if !c.knows[node] {
		return errors.New("NOSCRIPT No matching script")
	}
	c.executed[key]++
	return c.returns
}

// asks makes an exchange, and returns the error of each key. It complains of a wrong reply.
func asks(ctx context.Context, t *testing.T, s *Server, keys ...string) []error {
	errs := make([]error, len(keys))
	answered := make([]atomic.Int32, len(keys))
	runs, args := make([][]string, len(keys)), make([][]string, len(keys))
	for i, key := range keys {
		runs[i] = []string{key}
	}
	s.exchange(ctx, Script{Source: "source", SHA1: "sha"}, runs, args, func(i int, reply []any, err error) {
		answered[i].Add(1)
		if errs[i] = err; err == nil && reply[0] != keys[i] {
			t.Errorf("%s is answered %v", keys[i], reply)
		}
	})
	for i := range answered {
		if n := answered[i].Load(); n != 1 {
			t.Errorf("%s is answered %d times", keys[i], n)
		}
	}
	return errs
}

// However many runs miss a script at the same time, each node is sent it once, and each run is executed once.
func TestScriptIsBroughtOnce(t *testing.T) {
	for _, test := range []struct {
		name     string
		change   func(*forgetful)
		most     int           // EVAL on one node
		duration time.Duration // until all are answered
	}{
		{"nodes with names", func(*forgetful) {}, 1, 3 * time.Millisecond},
		{"nodes without names", func(c *forgetful) { c.unnamed = true }, 1, 7 * time.Millisecond},
		{"a Conn that panics when it is asked for them", func(c *forgetful) { c.panics = true }, 1,
			7 * time.Millisecond},
		{"nodes that forget scripts", func(c *forgetful) { c.forgets = true }, 1e9, 20 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newForgetful()
				test.change(c)
				s := NewServer(c)
				keys := []string{"a1", "b1", "c1", "a2", "b2", "c2"}
				const exchanges = 100
				began := time.Now()
				var all sync.WaitGroup
				for range exchanges {
					all.Go(func() {
						for i, err := range asks(t.Context(), t, s, keys...) {
							if err != nil {
								t.Errorf("%s: %v", keys[i], err)
							}
						}
					})
				}
				all.Wait()
				if took := time.Since(began); took > test.duration {
					t.Errorf("it took %v, want at most %v", took, test.duration)
				}
				for _, key := range keys {
					if c.executed[key] != exchanges {
						t.Errorf("%s is executed %d times, want %d", key, c.executed[key], exchanges)
					}
				}
				for node, n := range c.evals {
					if n > test.most {
						t.Errorf("node %s was sent the script %d times, want at most %d", node, n, test.most)
					}
				}
				if len(s.loading.answered) != 0 {
					t.Errorf("%d loadings are left", len(s.loading.answered))
				}
			})
		})
	}
}

// A single run that misses the script costs one exchange more.
func TestScriptIsBroughtInOneTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newForgetful()
		s := NewServer(c)
		began := time.Now()
		errs := asks(t.Context(), t, s, "a")
		if errs[0] != nil || time.Since(began) != 2*c.trip || c.executed["a"] != 1 {
			t.Errorf("%v after %v, executed %d times", errs, time.Since(began), c.executed["a"])
		}
	})
}

// Runs do not depend on the one that has the script with it: it may end with its context, or hang.
func TestScriptThatDoesNotArrive(t *testing.T) {
	for _, test := range []struct {
		name     string
		first    time.Duration // the context of the run with the script
		duration time.Duration // until another run is answered, from its beginning
	}{
		{"its context ends", 50 * time.Millisecond, 55 * time.Millisecond},
		{"it hangs", time.Hour, loadTimeout + 5*time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newForgetful()
				c.hangs = func(eval bool, key string) bool { return eval && key == "a first" }
				s := NewServer(c)
				ctx, cancel := context.WithTimeout(t.Context(), test.first)
				defer cancel()
				var all sync.WaitGroup
				var err error
				all.Go(func() { err = asks(ctx, t, s, "a first")[0] })
				synctest.Wait()
				time.Sleep(c.trip + time.Microsecond) // now the script is on its way
				began := time.Now()
				for i, err := range asks(t.Context(), t, s, "a2", "a3") {
					if err != nil {
						t.Errorf("a%d: %v", i+2, err)
					}
				}
				if took := time.Since(began); took > test.duration {
					t.Errorf("it took %v, want at most %v", took, test.duration)
				}
				close(c.resume)
				all.Wait()
				if ended := test.first < time.Hour; ended != errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the first: %v", err)
				}
				if c.executed["a2"] != 1 || c.executed["a3"] != 1 || c.executed["a first"] > 1 {
					t.Errorf("executed: %v", c.executed)
				}
			})
		})
	}
}

// A context that ends while a run waits for the script of another ends the wait.
func TestWaitForScriptEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newForgetful()
		c.hangs = func(eval bool, key string) bool { return eval && key == "a first" }
		s := NewServer(c)
		var all sync.WaitGroup
		all.Go(func() { asks(t.Context(), t, s, "a first") })
		time.Sleep(2 * c.trip)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := asks(ctx, t, s, "a second")[0]
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 105*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		close(c.resume)
		all.Wait()
	})
}

// NOSCRIPT of a script is what the script says.
func TestScriptThatSaysNoScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newForgetful()
		c.returns = errors.New("NOSCRIPT says the script")
		for _, err := range asks(t.Context(), t, NewServer(c), "a", "a2", "b") {
			if err == nil || !strings.HasPrefix(err.Error(), "NOSCRIPT says") {
				t.Error(err)
			}
		}
	})
}

// A node that does not answer keeps no other node from learning the script.
func TestScriptIsBroughtBesideNodeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newForgetful()
		c.hangs = func(_ bool, key string) bool { return key[:1] == "a" }
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		errs := asks(ctx, t, NewServer(c), "a1", "b1", "b2", "a2")
		for i, hangs := range []bool{true, false, false, true} {
			if hangs != errors.Is(errs[i], context.DeadlineExceeded) || !hangs && errs[i] != nil {
				t.Errorf("run %d: %v", i, errs[i])
			}
		}
	})
}

// A panic of our own code is the caller's, on several nodes, too.
func TestExchangePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if p := recover(); p != "a bug" {
				t.Errorf("recovered %v", p)
			}
		}()
		keys := [][]string{{"a"}, {"b"}}
		NewServer(newForgetful()).exchange(t.Context(), Script{Source: "source", SHA1: "sha"}, keys,
			make([][]string, 2),
			func(int, []any, error) { panic("a bug") })
	})
}
