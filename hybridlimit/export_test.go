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
