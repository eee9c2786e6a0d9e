package trypema_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/trypema/trypema"
)

func Example() {
	limits, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	for range 4 {
		d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.PerMinute(3))
		if err != nil {
			panic(err)
		}
		fmt.Println(d.Outcome, d.Remaining)
	}
	// Output:
	// allowed 2
	// allowed 1
	// allowed 0
	// rejected 0
}

// A login form peeks before it checks the password, counts only what failed, and forgets the failures after a
// success.
func ExampleLimiter_peek() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: 15 * time.Minute})
	defer limits.Close()
	attempts, ctx, rate := limits.Absolute(), context.Background(), trypema.Per(2, 15*time.Minute)

	login := func(user, password string) string {
		if d, _ := attempts.Peek(ctx, user, rate, 1); !d.Allowed {
			return "too many attempts"
		}
		if password != "secret" {
			if _, err := attempts.Allow(ctx, user, rate); err != nil {
				return err.Error()
			}
			return "wrong password"
		}
		if err := attempts.Delete(ctx, user); err != nil {
			return err.Error()
		}
		return "welcome"
	}
	for _, password := range []string{"guess", "secret", "guess", "guess", "secret"} {
		fmt.Println(login("ada", password))
	}
	// Output:
	// wrong password
	// welcome
	// wrong password
	// wrong password
	// too many attempts
}

// Calls may cost more than one, and each may have its own rate.
func ExampleLimiter_allowN() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute})
	defer limits.Close()
	tokens, ctx := limits.Absolute(), context.Background()

	d, _ := tokens.AllowN(ctx, "tenant", trypema.PerMinute(1000), 900)
	fmt.Println(d.Outcome, d.Remaining)
	d, _ = tokens.AllowN(ctx, "tenant", trypema.PerMinute(1000), 200)
	fmt.Println(d.Outcome, d.Remaining)
	d, _ = tokens.AllowN(ctx, "tenant", trypema.PerMinute(2000), 200) // the tenant has upgraded
	fmt.Println(d.Outcome, d.Remaining)
	d, _ = tokens.AllowN(ctx, "tenant", trypema.PerMinute(2000), 5000)
	fmt.Println(d.Outcome, d.RetryAfter == trypema.Never)
	// Output:
	// allowed 100
	// rejected 100
	// allowed 900
	// rejected true
}

func ExampleLimiter_set() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	jobs, ctx := limits.Absolute(), context.Background()

	if _, err := jobs.AllowN(ctx, "import", 1, 8); err != nil {
		panic(err)
	}
	r, _ := jobs.Set(ctx, "import", trypema.Greater(5), 5, trypema.KeepNewest)
	fmt.Println(r.Matched, r.Previous, r.Current)
	r, _ = jobs.Set(ctx, "import", trypema.Greater(5), 0, trypema.Replace)
	fmt.Println(r.Matched, r.Previous, r.Current)
	// Output:
	// true 8 5
	// false 5 5
}

func ExampleLimiter_usage() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	ctx := context.Background()

	if _, err := limits.Suppressed().AllowN(ctx, "feed", 100, 900); err != nil {
		panic(err)
	}
	u, _ := limits.Suppressed().Usage(ctx, "feed", 100)
	fmt.Println(u.Total, u.Declined, u.Limit, u.Remaining)
	// Output: 900 0 1000 100
}

// A client waits as long as it is told, and then passes.
func ExampleLimiter_allow() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: 50 * time.Millisecond})
	defer limits.Close()

	for _, message := range []string{"one", "two", "three"} {
		for {
			d, err := limits.Absolute().Allow(context.Background(), "sms", trypema.Per(2, 50*time.Millisecond))
			if err != nil {
				panic(err)
			}
			if d.Allowed {
				break
			}
			time.Sleep(d.RetryAfter)
		}
		fmt.Println("sent", message)
	}
	// Output:
	// sent one
	// sent two
	// sent three
}

// Support lets a customer in again who has used up an hour's password resets.
func ExampleLimiter_delete() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Hour})
	defer limits.Close()
	resets, ctx := limits.Absolute(), context.Background()

	for range 2 {
		d, _ := resets.Allow(ctx, "ada", trypema.PerHour(1))
		fmt.Println(d.Outcome)
	}
	if err := resets.Delete(ctx, "ada"); err != nil {
		panic(err)
	}
	d, _ := resets.Allow(ctx, "ada", trypema.PerHour(1))
	fmt.Println(d.Outcome)
	// Output:
	// allowed
	// rejected
	// allowed
}

// What a web server makes of a decision.
func ExampleDecision() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute})
	defer limits.Close()

	for _, rows := range []uint64{60, 60, 600} {
		d, err := limits.Absolute().AllowN(context.Background(), "tenant", trypema.PerMinute(100), rows)
		switch {
		case err != nil:
			fmt.Println(500, err)
		case d.Allowed:
			fmt.Println(200, d.Remaining, "left")
		case d.RetryAfter == trypema.Never:
			fmt.Println(413, "at most", d.Limit, "at once")
		default:
			fmt.Println(429, "Retry-After:", math.Ceil(d.RetryAfter.Seconds()))
		}
	}
	// Output:
	// 200 40 left
	// 429 Retry-After: 60
	// 413 at most 100 at once
}

// Errors say what is wrong in words, and errors.Is says which kind it is.
func Example_errors() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	exports, ctx := limits.Absolute(), context.Background()

	_, err := exports.Allow(ctx, "tenant", trypema.PerMinute(3))
	fmt.Println(errors.Is(err, trypema.ErrInvalidRate), err)
	_, err = exports.AllowN(ctx, "tenant", trypema.PerMinute(60), 0)
	fmt.Println(errors.Is(err, trypema.ErrInvalidCost), err)
	limits.Close()
	_, err = exports.Allow(ctx, "tenant", trypema.PerMinute(60))
	fmt.Println(errors.Is(err, trypema.ErrClosed), err)
	// Output:
	// true trypema: rate is 3/m, less than one event in a window of 10s; raise the rate or lengthen the window
	// true trypema: cost is 0; it must be at least 1 (Peek takes 0)
	// true trypema: closed
}

func ExampleNewLocal() {
	_, err := trypema.NewLocal(trypema.Options{Window: time.Second, Bucket: 2 * time.Second})
	fmt.Println(err)
	fmt.Println(errors.Is(err, trypema.ErrInvalidOptions))
	// Output:
	// trypema: Options.Bucket is 2s, longer than Options.Window (1s)
	// true
}

// A quota that is never passed.
func ExampleLocal_Absolute() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: 24 * time.Hour})
	defer limits.Close()

	var admitted int
	for range 50 {
		if d, _ := limits.Absolute().Allow(context.Background(), "exports of ada", trypema.PerDay(20)); d.Allowed {
			admitted++
		}
	}
	fmt.Println(admitted)
	// Output: 20
}

// Of a burst, Suppressed lets some pass beyond the limit, but never more than HardLimitFactor times as many
// in any window. It counts the calls that it declines, too.
func ExampleLocal_Suppressed() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute, HardLimitFactor: 1.5})
	defer limits.Close()
	feed, ctx, rate := limits.Suppressed(), context.Background(), trypema.PerMinute(100)

	for range 5000 {
		if _, err := feed.Allow(ctx, "feed", rate); err != nil {
			panic(err)
		}
	}
	u, _ := feed.Usage(ctx, "feed", rate)
	fmt.Println(u.Total, u.Total-u.Declined <= 150)
	// Output: 5000 true
}

// Whoever sends a new key each time does not fill the memory.
func ExampleLocal_Len() {
	limits, _ := trypema.NewLocal(trypema.Options{MaxKeys: 100})
	defer limits.Close()

	for i := range 5000 {
		key := fmt.Sprint("visitor ", i)
		if _, err := limits.Absolute().Allow(context.Background(), key, trypema.PerSecond(10)); err != nil {
			panic(err)
		}
	}
	fmt.Println(limits.Len())
	// Output: 100
}

func ExampleLocal_Close() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	limits.Close()

	_, err := limits.Absolute().Allow(context.Background(), "user:42", 5)
	fmt.Println(err, limits.Len())
	// Output: trypema: closed 0
}

func ExampleOptions_WithDefaults() {
	o, err := trypema.Options{Window: time.Minute}.WithDefaults()
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Bucket, o.HardLimitFactor)
	// Output: 600ms 1.5
}

func ExampleOutcome_String() {
	fmt.Println(trypema.OutcomeAllowed, trypema.OutcomeRejected, trypema.OutcomeSuppressed)
	// Output: allowed rejected suppressed
}
