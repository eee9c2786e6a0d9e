package middleware_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/middleware"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/redislimit"
)

// plain is a limiter of somebody else, which does not say how long its window is.
type plain struct{ trypema.Limiter }

// A rate that would fail each call is refused by Check, for every limiter and without asking Redis.
func TestCheckRate(t *testing.T) {
	server := fakeredis.New()
	o := trypema.Options{Window: time.Second}
	local := fixture.Local(t, o)
	redis := fixture.Redis(t, server, redislimit.Options{Options: o})
	hybrid := fixture.Hybrid(t, server, hybridlimit.Options{Options: redislimit.Options{Options: o}})
	for name, l := range map[string]trypema.Limiter{
		"local absolute": local.Absolute(), "local suppressed": local.Suppressed(),
		"redis absolute": redis.Absolute(), "redis suppressed": redis.Suppressed(),
		"hybrid absolute": hybrid.Absolute(), "hybrid suppressed": hybrid.Suppressed(),
		"somebody else's": plain{},
	} {
		small := ""
		if name != "somebody else's" {
			small = "o.Rate is 54/m, less than one event in the limiter's window of 1s; " +
				"raise the rate or lengthen the window"
		}
		for _, tt := range []struct {
			rate trypema.Rate
			want string
		}{
			{1, ""},
			{trypema.PerMinute(60), ""},
			{trypema.Unlimited, ""},
			{.9, small},
			{trypema.Rate(math.Inf(1)), "o.Rate is +Inf; it must be finite, or trypema.Unlimited"},
			{trypema.Rate(math.Inf(-1)), "o.Rate is -Inf; it must be above 0"},
			{trypema.Rate(math.NaN()), "o.Rate is NaN; it must be above 0"},
			{-1, "o.Rate is -1; it must be above 0"},
			{0, "o.Rate is 0 and RateOf is nil; one of them must be set"},
		} {
			err := (&middleware.Options[int]{Name: "o", Limiter: l, Rate: tt.rate}).Check()
			if got := strings.TrimPrefix(fmt.Sprint(err), "trypema: "); tt.want == "" && err != nil ||
				tt.want != "" && (got != tt.want || !errors.Is(err, trypema.ErrInvalidOptions)) {
				t.Errorf("%s at %v: %v, want %q", name, tt.rate, err, tt.want)
			}
		}
	}
	if server.Runs > 0 {
		t.Errorf("Redis was asked %d times", server.Runs)
	}
}

// A limiter that is a nil pointer is none.
func TestCheckLimiter(t *testing.T) {
	for _, l := range []trypema.Limiter{nil, (*plain)(nil)} {
		o := middleware.Options[int]{Name: "o", Limiter: l, Rate: 1}
		if err := o.Check(); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), "o.Limiter is nil") {
			t.Errorf("%T: %v", l, err)
		}
	}
}

// A fake that embeds a nil Limiter, as tests write them, has no window, and passes.
func TestCheckFake(t *testing.T) {
	type fake struct{ trypema.Limiter }
	if err := (&middleware.Options[int]{Name: "o", Limiter: fake{}, Rate: 1}).Check(); err != nil {
		t.Error(err)
	}
}
