package trypema

import "context"

// decided is a context with a decision. It is one allocation, where context.WithValue makes two.
type decided struct {
	context.Context
	decision Decision
}

type decisionKey struct{}

func (c *decided) Value(key any) any {
	if key == (decisionKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// NewContext returns a context that carries a decision. The middleware of packages httplimit and grpclimit
// call it, so that a handler knows what its limit has said; so can others.
func NewContext(ctx context.Context, d Decision) context.Context { return &decided{ctx, d} }

// FromContext returns the decision that a context carries, and whether it carries one. Where a call passes
// several limits, it is the decision of the last.
func FromContext(ctx context.Context) (Decision, bool) {
	c, ok := ctx.Value(decisionKey{}).(*decided)
	if !ok {
		return Decision{}, false
	}
	return c.decision, true
}
