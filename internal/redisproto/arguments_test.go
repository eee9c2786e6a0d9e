package redisproto_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/groupkey"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

func TestChecks(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		kind error // nil if it is valid
		says string
	}{
		{"a key", redisproto.CheckKey("k"), nil, ""},
		{"a key of 1 MiB", redisproto.CheckKey(strings.Repeat("k", 1<<20)), nil, ""},
		{"a longer one", redisproto.CheckKey(strings.Repeat("k", 1<<20+1)), trypema.ErrInvalidKey,
			"trypema: key has 1048577 bytes; it must have at most 1048576"},
		{"an empty one", redisproto.CheckKey(""), trypema.ErrInvalidKey,
			"trypema: key is empty; it must have at least one byte"},
		{"the last history", redisproto.CheckHistory(trypema.KeepOldest), nil, ""},
		{"one beyond it", redisproto.CheckHistory(trypema.KeepOldest + 1), trypema.ErrInvalidOptions,
			"trypema: history is History(3); it must be Replace, KeepNewest or KeepOldest"},
		{"the largest total", redisproto.CheckTotal(1<<51 - 1), nil, ""},
		{"a larger one", redisproto.CheckTotal(1 << 51), trypema.ErrInvalidCost,
			"trypema: total is 2251799813685248; it must be at most 2251799813685247, " +
				"which is as far as Redis counts"},
		{"no cost", redisproto.ErrZeroCost, trypema.ErrInvalidCost,
			"trypema: cost is 0; it must be at least 1 (Peek takes 0)"},
	} {
		if test.kind == nil && test.err != nil ||
			test.kind != nil && (!errors.Is(test.err, test.kind) || test.err.Error() != test.says) {
			t.Errorf("%s: %v, want %q", test.name, test.err, test.says)
		}
	}
}

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		rate trypema.Rate
		want uint64
		err  error
	}{
		{10, 100, nil},
		{1 << 51, 1<<51 - 1, nil},
		{trypema.Unlimited, redisproto.MaxCapacity, nil},
		{0.01, 0, trypema.ErrInvalidRate},
		{-1, 0, trypema.ErrInvalidRate},
	} {
		if c, err := redisproto.Capacity(test.rate, 10*time.Second); c != test.want || !errors.Is(err, test.err) {
			t.Errorf("%v: %d, %v; want %d, %v", test.rate, c, err, test.want, test.err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ prefix, form, want string }{
		{"trypema", "user:42", "{trypema:user:42}:a:10s"},
		{"shop:login", "42", "{shop:login:42}:a1:10s"},
		{"shop:login:", "42", "{shop:login::42}:a2:10s"},
		{"trypema", groupkey.Prefix("free") + "bob", "{trypema:bob}:a:10s:free"},
		{"shop:login", groupkey.Prefix("free") + "bob", "{shop:login:bob}:a1:10s:free"},
	} {
		if got := redisproto.NewNames(test.prefix, "a", 10*time.Second).Of(test.form); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
	n := redisproto.NewNames("trypema", "a", 10*time.Second)
	got := redisproto.SetArgs(trypema.Less(5), 7, trypema.KeepNewest, n.Letter())
	if want := []string{"Less(5)", "7", "KeepNewest", "a"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name   string
		v      window.Verdict
		unit   time.Duration
		denial trypema.Outcome
		want   trypema.Decision // with Limit
	}{
		{
			"allowed", window.Verdict{Allowed: true, Now: 10, Then: 10}, time.Microsecond, trypema.OutcomeRejected,
			trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Remaining: 90, RemainingAfterWaiting: 90},
		},
		{
			"rejected, in microseconds", window.Verdict{Now: 100, Then: 60, Wait: 5}, time.Microsecond,
			trypema.OutcomeRejected,
			trypema.Decision{RetryAfter: 5 * time.Microsecond, RemainingAfterWaiting: 40},
		},
		{
			"suppressed, in nanoseconds", window.Verdict{Now: 150, Then: 60, Wait: 5, Factor: 0.5},
			time.Nanosecond, trypema.OutcomeSuppressed,
			trypema.Decision{Outcome: trypema.OutcomeSuppressed, RetryAfter: 5, RemainingAfterWaiting: 40,
				SuppressionFactor: 0.5},
		},
		{
			"for good", window.Verdict{Now: 20, Wait: window.Never}, time.Microsecond, trypema.OutcomeRejected,
			trypema.Decision{Remaining: 80, RetryAfter: trypema.Never},
		},
		{
			"for as long as a wait may be", window.Verdict{Now: 100, Wait: math.MaxInt64 / 1000},
			time.Microsecond, trypema.OutcomeRejected,
			trypema.Decision{RetryAfter: math.MaxInt64 / 1000 * time.Microsecond, RemainingAfterWaiting: 100},
		},
	} {
		var d trypema.Decision
		redisproto.Decide(&d, 100, &test.v, test.unit, test.denial)
		test.want.Limit = 100
		if d != test.want {
			t.Errorf("%s: %+v\nwant %+v", test.name, d, test.want)
		}
	}
}

func TestOpenAndClosed(t *testing.T) {
	const retry = 5 * time.Second
	for _, test := range []struct {
		name string
		got  trypema.Decision
		want trypema.Decision
	}{
		{"open", redisproto.Open(10, 3),
			trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 10, Remaining: 7,
				RemainingAfterWaiting: 7}},
		{"open for more than fits", redisproto.Open(10, 11),
			trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed, Limit: 10}},
		{"closed", redisproto.Closed(10, 10, retry, trypema.OutcomeRejected),
			trypema.Decision{Outcome: trypema.OutcomeRejected, Limit: 10, RetryAfter: retry}},
		{"closed for more than fits", redisproto.Closed(10, 11, retry, trypema.OutcomeRejected),
			trypema.Decision{Outcome: trypema.OutcomeRejected, Limit: 10, RetryAfter: trypema.Never}},
		{"closed under Suppressed", redisproto.Closed(10, 1, retry, trypema.OutcomeSuppressed),
			trypema.Decision{Outcome: trypema.OutcomeSuppressed, Limit: 10, RetryAfter: retry,
				SuppressionFactor: 1}},
	} {
		if test.got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, test.got, test.want)
		}
	}
}
