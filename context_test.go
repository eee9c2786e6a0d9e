package trypema_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/trypema/trypema"
)

// A context carries the last decision, and everything else that it did.
func TestContext(t *testing.T) {
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, 7))
	if d, ok := trypema.FromContext(parent); ok || d != (trypema.Decision{}) {
		t.Errorf("a context without a decision has %+v, %v", d, ok)
	}
	first, last := trypema.Decision{Limit: 1}, trypema.Decision{Limit: 2, Allowed: true}
	ctx := trypema.NewContext(parent, first)
	if d, ok := trypema.FromContext(ctx); d != first || !ok {
		t.Errorf("%+v, %v", d, ok)
	}
	ctx, end := context.WithCancel(trypema.NewContext(ctx, last))
	defer end()
	if d, ok := trypema.FromContext(ctx); d != last || !ok || ctx.Value(key{}) != 7 {
		t.Errorf("%+v, %v, and the value %v", d, ok, ctx.Value(key{}))
	}
	if cancel(); ctx.Err() == nil {
		t.Error("the end of the parent is not the end of the context")
	}
}

func ExampleNewContext() {
	ctx := trypema.NewContext(context.Background(), trypema.Decision{Allowed: true, Remaining: 41})
	d, ok := trypema.FromContext(ctx)
	fmt.Println(d.Remaining, ok)
	// Output: 41 true
}

// A handler behind a limit sheds what is not needed when little is left.
func ExampleFromContext() {
	handle := func(ctx context.Context) string {
		if d, ok := trypema.FromContext(ctx); ok && d.Remaining < d.Limit/10 {
			return "a short answer"
		}
		return "a long answer"
	}
	fmt.Println(handle(context.Background()))
	fmt.Println(handle(trypema.NewContext(context.Background(),
		trypema.Decision{Allowed: true, Limit: 100, Remaining: 3})))
	// Output:
	// a long answer
	// a short answer
}
