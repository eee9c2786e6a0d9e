package trypema_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/trypema/trypema"
)

// Ten in a second, and thirty in an hour: a call has to keep both.
func ExampleLocal_Bind() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	both, err := limits.Bind(trypema.StrategyAbsolute,
		trypema.AtMost(10, time.Second).Named("second"),
		trypema.AtMost(30, time.Hour).Named("hour"))
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

	tokens, err := limits.Bind(trypema.StrategyAbsolute,
		trypema.AtMost(10_000, time.Minute), trypema.AtMost(100_000, 24*time.Hour))
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

	logins, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(5, time.Minute))
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
	// trypema: the reservation was committed before, at a cost of 0; it cannot be committed at 0
	// 5 <nil>
}

// A Keeper says how a reservation is settled.
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
	// Output: trypema: limit "day": rate is -1/s; it must be above 0
}

// The window comes with the limit, and the capacity is exactly what it says.
func ExampleAtMost() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	perUser, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := perUser.Allow(context.Background(), "user:42")
	fmt.Println(d.Allowed, d.Limit, d.Remaining, err)
	// Output: true 100 99 <nil>
}

// A tenant and its user have a limit each, and a call has to keep both.
func ExampleAll() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	perTenant, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(1000, time.Minute).Named("tenant"))
	if err != nil {
		fmt.Println(err)
		return
	}
	perUser, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(2, time.Minute).Named("user"))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for range 3 {
		d, err := trypema.All(ctx, perTenant.Ask("acme", 1), perUser.Ask("user:42", 1))
		fmt.Println(d.Allowed, d.RefusedBy, err)
	}
	tenant, err := perTenant.Usage(ctx, "acme")
	fmt.Println(tenant[0].Total, err)
	// Output:
	// true  <nil>
	// true  <nil>
	// false user <nil>
	// 2 <nil>
}

func ExampleParseLimit() {
	for _, text := range []string{"100/m", "burst=20/2s", "0/h", "none", "100"} {
		l, err := trypema.ParseLimit(text)
		fmt.Println(l, l.Name, err)
	}
	// Output:
	// 100 per 1m0s  <nil>
	// 20 per 2s burst <nil>
	// 0 per 1h0m0s  <nil>
	// no limit  <nil>
	// 0 per 0s  trypema: limit is "100"; it must be a number per time, as in 10/s, 1000/h, 20/d or 5/15m; or "none"; after a name and "=" if it has one
}

func ExampleLimit_String() {
	fmt.Println(trypema.AtMost(100, time.Minute))
	fmt.Println(trypema.Limit{Rate: trypema.PerSecond(.5), Window: time.Minute})
	// Output:
	// 100 per 1m0s
	// 30 per 1m0s
}

func ExampleLimit_Named() {
	fmt.Println(trypema.AtMost(100, time.Minute).Named("user").Label())
	// Output: user
}

func ExampleLimit_Capacity() {
	fmt.Println(trypema.Limit{Rate: trypema.PerSecond(2.5), Window: time.Second}.Capacity())
	// Output: 2 <nil>
}

// A limit of 0 blocks: nothing passes, and nothing is stored.
func ExampleLimit_Blocks() {
	fmt.Println(trypema.AtMost(0, time.Minute).Blocks(), trypema.AtMost(1, time.Minute).Blocks())
	// Output: true false
}

func ExampleLimit_IsNoLimit() {
	fmt.Println(trypema.NoLimit.IsNoLimit(), trypema.NoLimit.Named("enterprise").IsNoLimit())
	// Output: true true
}

// Limits are text in files.
func ExampleLimit_MarshalText() {
	text, err := json.Marshal(trypema.AtMost(5, 15*time.Minute).Named("login"))
	fmt.Println(string(text), err)
	// Output: "login=5/15m" <nil>
}

func ExampleLimit_UnmarshalText() {
	var plans map[string]trypema.Limit
	err := json.Unmarshal([]byte(`{"free": "100/h", "enterprise": "none"}`), &plans)
	fmt.Println(plans["free"], "-", plans["enterprise"], err)
	// Output: 100 per 1h0m0s - no limit <nil>
}

func ExampleLimit_Label() {
	fmt.Println(trypema.Limit{Rate: 10, Window: time.Second}.Label())
	fmt.Println(trypema.Limit{Name: "burst", Rate: 10, Window: time.Second}.Label())
	// Output:
	// 1s
	// burst
}

func ExampleStrategy_MarshalText() {
	text, err := json.Marshal(trypema.StrategySuppressed)
	fmt.Println(string(text), err)
	// Output: "suppressed" <nil>
}

func ExampleStrategy_UnmarshalText() {
	var s trypema.Strategy
	fmt.Println(json.Unmarshal([]byte(`"suppressed"`), &s), s)
	fmt.Println(json.Unmarshal([]byte(`"strict"`), &s))
	// Output:
	// <nil> suppressed
	// trypema: strategy is "strict"; it must be absolute or suppressed
}

func ExampleStrategy_String() {
	fmt.Println(trypema.StrategyAbsolute, trypema.StrategySuppressed)
	// Output: absolute suppressed
}

// The windows of a Bound are as fine as that of the options.
func ExampleOptions_BucketOf() {
	o, err := trypema.Options{Window: 10 * time.Second}.WithDefaults()
	fmt.Println(o.BucketOf(time.Hour), err)
	// Output: 36s <nil>
}

// perSecondAndHour is what the examples below are about: 10 in a second, and 30 in an hour.
func perSecondAndHour() (both *trypema.Bound, done func() error) {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	both, err = limits.Bind(trypema.StrategyAbsolute,
		trypema.AtMost(10, time.Second).Named("second"),
		trypema.AtMost(30, time.Hour).Named("hour"))
	if err != nil {
		panic(err)
	}
	return both, limits.Close
}

func ExampleBound_Allow() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.Allow(context.Background(), "user:42")
	fmt.Println(d.Allowed, d.Limit, d.Remaining, err)
	// Output: true 10 9 <nil>
}

func ExampleBound_AllowN() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.AllowN(context.Background(), "user:42", 11)
	fmt.Println(d.Allowed, d.RefusedBy, d.RetryAfter == trypema.Never, err)
	// Output: false second true <nil>
}

func ExampleBound_Peek() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := both.Peek(context.Background(), "user:42", 3)
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 10 <nil>
}

func ExampleBound_Reserve() {
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

func ExampleBound_Usage() {
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

func ExampleBound_Delete() {
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

// A worker takes its turn.
func ExampleBound_Wait() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	mails, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(1, 10*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 3 {
		d, err := mails.Wait(context.Background(), "smtp.example.com")
		fmt.Println(i, d.Allowed, err)
	}
	// Output:
	// 0 true <nil>
	// 1 true <nil>
	// 2 true <nil>
}

// A wait that cannot end in time fails at once.
func ExampleBound_WaitN() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	d, err := both.WaitN(ctx, "user:42", 10)
	fmt.Println(d.Allowed, err)
	_, err = both.WaitN(ctx, "user:42", 10)
	fmt.Println(errors.Is(err, trypema.ErrWouldExceedDeadline))
	// Output:
	// true <nil>
	// true
}

func ExampleBound_Ask() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	d, err := trypema.All(context.Background(), both.Ask("user:42", 1), both.Ask("user:43", 11))
	fmt.Println(d.Allowed, d.RefusedBy, err)
	// Output: false second <nil>
}

func ExampleBound_Limits() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	fmt.Println(both.Limits())
	// Output: [10 per 1s 30 per 1h0m0s]
}

func ExampleBound_Strategy() {
	both, done := perSecondAndHour()
	defer done() //nolint:errcheck // it returns nil
	fmt.Println(both.Strategy())
	// Output: absolute
}

// byTheHour is a Keeper of somebody else: it denies all.
type byTheHour struct{ trypema.Keeper }

func (byTheHour) AllowN(context.Context, string, uint64) (trypema.Decision, error) {
	return trypema.Decision{Limit: 10, RetryAfter: time.Hour}, nil
}

// A provider of somebody else has a Keeper, and gets Wait, All and the rest of a Bound for it.
func ExampleNewBound() {
	b, err := trypema.NewBound(trypema.StrategyAbsolute, []trypema.Limit{trypema.AtMost(10, time.Hour)},
		func([]trypema.Limit) (trypema.Keeper, error) { return byTheHour{}, nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := b.Wait(ctx, "user:42")
	fmt.Println(d.Limit, errors.Is(err, trypema.ErrWouldExceedDeadline))
	// Output: 10 true
}

func ExampleDecision_RetryAfterSeconds() {
	fmt.Println(trypema.Decision{RetryAfter: 1200 * time.Millisecond}.RetryAfterSeconds())
	fmt.Println(trypema.Decision{RetryAfter: trypema.Never}.RetryAfterSeconds())
	// Output:
	// 2
	// 31536000
}

// With the rate of each call, on a Limiter.
func ExampleAllowMany() {
	limits, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	calls := []trypema.Call{{Key: "ann", Cost: 2}, {Key: "bob", Cost: 4}}
	decisions, err := trypema.AllowMany(context.Background(), limits.Absolute(), trypema.PerMinute(3), calls, nil)
	if err != nil {
		panic(err)
	}
	for i, d := range decisions {
		fmt.Println(calls[i].Key, d.Allowed)
	}
	// Output:
	// ann true
	// bob false
}

// Many calls in one, as a server reads them from a pipeline: the memory of all keys is requested at once.
func ExampleBound_AllowMany() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	perUser, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(2, time.Minute))
	if err != nil {
		panic(err)
	}

	calls := []trypema.Call{{Key: "ann", Cost: 1}, {Key: "bob", Cost: 2}, {Key: "ann", Cost: 1}, {Key: "ann", Cost: 1}}
	decisions := make([]trypema.Decision, 0, len(calls)) // to be used again for the next calls
	decisions, err = perUser.AllowMany(context.Background(), calls, decisions)
	if err != nil {
		panic(err)
	}
	for i, d := range decisions {
		fmt.Println(calls[i].Key, d.Allowed, d.Remaining)
	}
	// Output:
	// ann true 1
	// bob true 0
	// ann true 0
	// ann false 0
}

// Requests and tokens of a user are counted apart, though both are by the minute.
func ExampleBound_InGroup() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	requests, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(60, time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(10_000, time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	if tokens, err = tokens.InGroup("tokens"); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if _, err := tokens.AllowN(ctx, "user:42", 4000); err != nil {
		fmt.Println(err)
		return
	}
	d, err := requests.Allow(ctx, "user:42")
	fmt.Println(d.Remaining, err)
	// Output: 59 <nil>
}
