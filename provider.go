package trypema

// Provider is where limits are kept: in this process (Local), in Redis (package redislimit), or leased from
// Redis and decided here (package hybridlimit). A program declares one variable of it and chooses at start.
type Provider interface {
	// Absolute returns the limiter that admits while the window of the options has room, by the rate of each
	// call.
	Absolute() Limiter

	// Suppressed returns the limiter that declines a growing fraction of calls near and over the limit.
	Suppressed() Limiter

	Binder

	// Close ends what the provider has under way. Calls made after it return ErrClosed, and so does what
	// waits.
	Close() error
}

// Binder binds limits: what Policies need of a Provider.
type Binder interface {
	// Bind returns limits that are kept for any key, or what is wrong with them: see CheckLimits. Two Bounds
	// of the same windows count together.
	Bind(s Strategy, limits ...Limit) (*Bound, error)
}
