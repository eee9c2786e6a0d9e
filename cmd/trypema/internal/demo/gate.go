package demo

// gate lets calls through while it is open: each takes a place while it is inside. It does what a
// sync.RWMutex does, but virtual time passes for those that wait at it.
type gate chan struct{}

// enter returns when the gate is open. The caller leaves afterwards.
func (g gate) enter() { g <- struct{}{} }
func (g gate) leave() { <-g }

// close takes all places: it keeps calls out, and returns when none is inside. Only one caller may close it
// at a time.
func (g gate) close() {
	for range cap(g) {
		g.enter()
	}
}

func (g gate) open() {
	for range cap(g) {
		g.leave()
	}
}
