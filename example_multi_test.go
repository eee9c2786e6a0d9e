package trypema_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trypema/trypema"
)

// Ten in a second, and thirty in an hour: a call has to keep both.
func ExampleLocal_Multi() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	both, err := limits.Multi(trypema.StrategyAbsolute,
		trypema.Limit{Name: "second", Rate: trypema.PerSecond(10), Window: time.Second},
		trypema.Limit{Name: "hour", Rate: trypema.PerHour(30), Window: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := both.AllowN(context.Background(), "user:42", 8)
	fmt.Println(d.Allowed, d.Remaining, err)
	d, err = both.AllowN(context.Background(), "user:42", 8)
	fmt.Println(d.Allowed, d.RefusedBy, err)
	// Output:
	// true 2 <nil>
	// false second <nil>
}

// A request to a language model is admitted by an estimate of its tokens, and pays for what it has used.
func ExampleReservation_Commit() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	tokens, err := limits.Multi(trypema.StrategyAbsolute,
		trypema.Limit{Name: "minute", Rate: trypema.PerMinute(10_000), Window: time.Minute},
		trypema.Limit{Name: "day", Rate: trypema.PerDay(100_000), Window: 24 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	r, err := tokens.Reserve(ctx, "user:42", 4000, 5*time.Minute)
	if err != nil || !r.Allowed {
		fmt.Println("not now", err)
		return
	}
	if err := r.Commit(ctx, 1234); err != nil {
		fmt.Println(err)
		return
	}
	used, err := tokens.Usage(ctx, "user:42")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(used[0].Remaining, used[1].Remaining)
	// Output: 8766 98766
}

// A call that came to nothing costs nothing.
func ExampleReservation_Refund() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	logins, err := limits.Multi(trypema.StrategyAbsolute,
		trypema.Limit{Rate: trypema.PerMinute(5), Window: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	r, err := logins.Reserve(ctx, "user:42", 1, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Allowed, r.Remaining)
	fmt.Println(r.Refund(ctx))
	fmt.Println(r.Refund(ctx))
	d, err := logins.Peek(ctx, "user:42", 1)
	fmt.Println(d.Remaining, err)
	// Output:
	// true 4
	// <nil>
	// trypema: the reservation is settled already
	// 5 <nil>
}

// An implementation of MultiLimiter says how a reservation is settled.
func ExampleNewReservation() {
	admitted := trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed}
	r := trypema.NewReservation(admitted, 10, time.Minute, func(_ context.Context, was, is uint64) error {
		fmt.Println("from", was, "to", is)
		return nil
	})
	fmt.Println(r.Commit(context.Background(), 7))
	// Output:
	// from 10 to 7
	// <nil>
}

// What was read from somewhere is looked at before it is used.
func ExampleCheckLimits() {
	fmt.Println(trypema.CheckLimits(trypema.StrategyAbsolute, []trypema.Limit{
		{Name: "burst", Rate: trypema.PerSecond(10), Window: time.Second},
		{Name: "day", Rate: -1, Window: 24 * time.Hour},
	}))
	// Output: trypema: limit "day": rate is -1 per second; it must be above 0
}

func ExampleLimit_Label() {
	fmt.Println(trypema.Limit{Rate: 10, Window: time.Second}.Label())
	fmt.Println(trypema.Limit{Name: "burst", Rate: 10, Window: time.Second}.Label())
	// Output:
	// 1s
	// burst
}

func ExampleStrategy_String() {
	fmt.Println(trypema.StrategyAbsolute, trypema.StrategySuppressed)
	// Output: absolute suppressed
}

// The windows of a MultiLimiter are as fine as that of the options.
func ExampleOptions_BucketOf() {
	o, err := trypema.Options{Window: 10 * time.Second}.WithDefaults()
	fmt.Println(o.BucketOf(time.Hour), err)
	// Output: 36s <nil>
}

// perSecondAndHour is what the examples below are about: 10 in a second, and 30 in an hour.
func perSecondAndHour() (both trypema.MultiLimiter, done func() error) {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	both, err = limits.Multi(trypema.StrategyAbsolute,
		trypema.Limit{Name: "second", Rate: trypema.PerSecond(10), Window: time.Second},
		trypema.Limit{Name: "hour", Rate: trypema.PerHour(30), Window: time.Hour})
	if err != nil {
		panic(err)
	}
	return both, limits.Close
}

func ExampleMultiLimiter_allow() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.Allow(context.Background(), "user:42")
	fmt.Println(d.Allowed, d.Limit, d.Remaining, err)
	// Output: true 10 9 <nil>
}

func ExampleMultiLimiter_allowN() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.AllowN(context.Background(), "user:42", 11)
	fmt.Println(d.Allowed, d.RefusedBy, d.RetryAfter == trypema.Never, err)
	// Output: false second true <nil>
}

func ExampleMultiLimiter_peek() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.Peek(context.Background(), "user:42", 3)
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 10 <nil>
}

func ExampleMultiLimiter_reserve() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	r, err := both.Reserve(ctx, "user:42", 5, time.Minute)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Allowed, r.Remaining, r.Commit(ctx, 2))
	// Output: true 5 <nil>
}

func ExampleMultiLimiter_usage() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	if _, err := both.AllowN(context.Background(), "user:42", 4); err != nil {
		fmt.Println(err)
		return
	}
	used, err := both.Usage(context.Background(), "user:42")
	fmt.Println(used[0].Remaining, used[1].Remaining, err)
	// Output: 6 26 <nil>
}

func ExampleMultiLimiter_delete() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	if _, err := both.AllowN(ctx, "user:42", 10); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(both.Delete(ctx, "user:42"))
	d, err := both.Allow(ctx, "user:42")
	fmt.Println(d.Allowed, err)
	// Output:
	// <nil>
	// true <nil>
}
