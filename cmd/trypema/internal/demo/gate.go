package demo

import "sync"

// gate lets calls through while it is open. It does what a sync.RWMutex does, but virtual time passes for
// those that wait at it.
type gate struct {
	mu     sync.Mutex // guards the fields below
	moved  *sync.Cond // when inside falls to 0, or closed changes
	inside int        // calls
	closed bool
}

func newGate() *gate {
	g := new(gate)
	g.moved = sync.NewCond(&g.mu)
	return g
}

// enter returns when the gate is open. The caller leaves afterwards.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.closed {
		g.moved.Wait()
	}
	g.inside++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 {
		g.moved.Broadcast()
	}
}

// close keeps calls out, and returns when none is inside. Only one caller may close it at a time.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for g.inside > 0 {
		g.moved.Wait()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	g.moved.Broadcast()
}
