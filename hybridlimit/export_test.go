package hybridlimit

import "runtime"

// OnCollected has f called when the Absolute limiter of a provider, which its timers must not keep, is collected.
func OnCollected(p *Provider, f func()) { runtime.AddCleanup(p.absolute, func(f func()) { f() }, f) }
