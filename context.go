package trypema

import (
	"context"

	"github.com/trypema/trypema/internal/contextkey"
)

// decided is a context with a decision. It is one allocation, where context.WithValue makes two.
type decided struct {
	context.Context
	decision Decision
}

func (c *decided) Value(key any) any {
	if key == (contextkey.Decision{}) {
		return &c.decision
	}
	return c.Context.Value(key)
}

// NewContext returns a context that carries a decision. The middleware of packages httplimit and grpclimit
// call it, so that a handler knows what its limit has said; so can others.
func NewContext(ctx context.Context, d Decision) context.Context { return &decided{ctx, d} }

// FromContext returns the decision that a context carries, and whether it carries one. Where a call passes
// several limits, it is the decision of the last.
func FromContext(ctx context.Context) (Decision, bool) {
	d, ok := ctx.Value(contextkey.Decision{}).(*Decision)
	if !ok {
		return Decision{}, false
	}
	return *d, true
}
