// Package contextkey has the key by which package trypema finds a decision in a context. So a middleware can
// have a context of its own that carries one.
package contextkey

// Decision is the key. The value is a *trypema.Decision.
type Decision struct{}
