package trypema_test

import (
	"context"
	"fmt"
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

// A login form peeks before it checks the password, counts only what failed, and forgets the failures after a success.
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
