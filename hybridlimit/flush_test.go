package hybridlimit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
)

// A Flush whose context has ended leaves no message without an end: the keys settle later.
func TestFlushAfterTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, fakeredis.New(), hybridlimit.Options{})
		if _, err := p.Absolute().Allow(ctx, "k", 100); err != nil {
			t.Fatal(err)
		}
		over, cancel := context.WithCancel(ctx)
		cancel()
		if err := p.Flush(over); !errors.Is(err, context.Canceled) {
			t.Errorf("Flush: %v", err)
		}
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := p.Flush(soon); err != nil {
			t.Errorf("the next Flush: %v", err)
		}
	})
}
