package hybridlimit

import (
	"runtime"
	"time"
)

// OnCollected has f called when the Absolute limiter of a provider, which its timers must not keep, is collected.
func OnCollected(p *Provider, f func()) { runtime.AddCleanup(p.absolute, func(f func()) { f() }, f) }

// StepWall sets the clock on the wall forward, as a provider sees it.
func StepWall(p *Provider, d time.Duration) {
	for _, l := range p.all() {
		s := &l.settler
		s.mu.Lock()
		wall := s.wall
		s.wall = func() int64 { return wall() + int64(d) }
		s.mu.Unlock()
	}
}

// Windows returns the number of lengths of windows, beside that of the options, that a provider holds keys
// of.
func Windows(p *Provider) (n int) {
	for _, l := range []*limiter{p.absolute, p.suppressed} {
		n += len(l.all()) - 1
	}
	return n
}
