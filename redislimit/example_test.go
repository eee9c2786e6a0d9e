package redislimit_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Two servers share a limit.
func Example() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	options := redislimit.Options{Options: trypema.Options{Window: time.Minute}}

	serve := func(name string) {
		limits, err := redislimit.New(conn, options)
		if err != nil {
			panic(err)
		}
		defer limits.Close()

		for range 2 {
			d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.PerMinute(3))
			if err != nil {
				panic(err)
			}
			fmt.Println(name, d.Outcome, d.Remaining)
		}
	}
	serve("server 1")
	serve("server 2")
	// Output:
	// server 1 allowed 2
	// server 1 allowed 1
	// server 2 allowed 0
	// server 2 rejected 0
}

// Applications that share a Redis have a prefix each. Of four instances, each enforces a quarter of the limit
// while Redis is gone.
func ExampleNew() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := redislimit.New(conn, redislimit.Options{
		Options:   trypema.Options{Window: time.Minute},
		Prefix:    "shop",
		Timeout:   time.Second,
		OnFailure: redislimit.FailLocal,
		Instances: 4,
	})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.PerMinute(100))
	fmt.Println(d.Outcome, d.Remaining, err)
	// Output: allowed 99 <nil>
}

// The server of a limiter may be gone: whoever guards a payment has it closed then, whoever guards a search
// open.
func ExampleFailurePolicy() {
	gone := fakeredis.New()
	gone.Fault = func(string) ([]any, error) { return nil, errors.New("connection refused") }

	for _, policy := range []redislimit.FailurePolicy{redislimit.FailLocal, redislimit.FailOpen,
		redislimit.FailClosed} {
		limits, err := redislimit.New(gone, redislimit.Options{OnFailure: policy})
		if err != nil {
			panic(err)
		}
		for range 2 {
			d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.Per(1, 10*time.Second))
			fmt.Println(policy, d.Outcome, d.Fallback, err)
		}
		limits.Close()
	}
	// Output:
	// FailLocal allowed true <nil>
	// FailLocal rejected true <nil>
	// FailOpen allowed true <nil>
	// FailOpen allowed true <nil>
	// FailClosed rejected true <nil>
	// FailClosed rejected true <nil>
}

func ExampleFailurePolicy_String() {
	fmt.Println(redislimit.FailLocal, redislimit.FailOpen, redislimit.FailClosed)
	// Output: FailLocal FailOpen FailClosed
}

func ExampleFailurePolicy_MarshalText() {
	text, err := redislimit.FailOpen.MarshalText()
	fmt.Println(string(text), err)
	// Output: FailOpen <nil>
}

// A flag, or a field of a file, says what happens without Redis.
func ExampleFailurePolicy_UnmarshalText() {
	var policy redislimit.FailurePolicy
	flags := flag.NewFlagSet("api", flag.ContinueOnError)
	flags.TextVar(&policy, "on-failure", redislimit.FailLocal, "who decides without Redis")
	err := flags.Parse([]string{"--on-failure", "FailClosed"})
	fmt.Println(policy, err)
	// Output: FailClosed <nil>
}

// OnChange is where an alarm is raised, and a gauge set.
func ExampleHealth() {
	conn := fakeredis.New()
	conn.Fault = func(string) ([]any, error) { return nil, errors.New("connection refused") }
	changes := make(chan redislimit.Health, 8)
	limits, err := redislimit.New(conn, redislimit.Options{OnChange: func(h redislimit.Health) { changes <- h }})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	// A single failure is none yet.
	for len(changes) == 0 {
		if _, err := limits.Absolute().Allow(context.Background(), "user:42", 10); err != nil {
			panic(err)
		}
	}
	h := <-changes
	fmt.Println(h.Available, h.Err)
	// Output: false connection refused
}

// Usage, Set and Delete have nobody to answer for Redis.
func Example_unavailable() {
	gone := fakeredis.New()
	gone.Fault = func(string) ([]any, error) { return nil, errors.New("connection refused") }
	limits, err := redislimit.New(gone, redislimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	_, err = limits.Absolute().Usage(context.Background(), "user:42", 10)
	fmt.Println(errors.Is(err, redislimit.ErrUnavailable))
	fmt.Println(err)
	// Output:
	// true
	// redislimit: Redis is unavailable: connection refused
}

func ExampleOptions_WithDefaults() {
	o, err := redislimit.Options{}.WithDefaults()
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Prefix, o.Window, o.Timeout, o.OnFailure, o.Instances, o.RetryInterval)

	_, err = redislimit.Options{Prefix: "{shop}"}.WithDefaults()
	fmt.Println(err)
	// Output:
	// trypema 10s 250ms FailLocal 1 500ms
	// trypema: redislimit.Options.Prefix is "{shop}"; it must not contain a brace, which Redis Cluster gives a meaning
}

// A supplier takes 100 lines a day from all servers together, and closes the account of whoever sends more.
// So none are sent while Redis is gone.
func ExampleProvider_Absolute() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := redislimit.New(conn, redislimit.Options{
		Options:   trypema.Options{Window: 24 * time.Hour},
		OnFailure: redislimit.FailClosed,
	})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	for _, lines := range []uint64{70, 40, 30} {
		d, err := limits.Absolute().AllowN(context.Background(), "supplier", trypema.PerDay(100), lines)
		if err != nil {
			panic(err)
		}
		fmt.Println(lines, d.Outcome, d.Remaining)
	}
	// Output:
	// 70 allowed 30
	// 40 rejected 30
	// 30 allowed 0
}

// The servers of an API under overload decline what is too much, evenly, and know how much that was.
func ExampleProvider_Suppressed() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := redislimit.New(conn, redislimit.Options{
		Options: trypema.Options{Window: time.Hour, HardLimitFactor: 1.2},
	})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	api, ctx, rate := limits.Suppressed(), context.Background(), trypema.PerHour(100)

	for range 1000 {
		if _, err := api.Allow(ctx, "api", rate); err != nil {
			panic(err)
		}
	}
	u, _ := api.Usage(ctx, "api", rate)
	fmt.Println(u.Limit, u.Total, u.Total-u.Declined <= 120)
	// Output: 100 1000 true
}

// What was counted stays in Redis, for the other servers and for the next deployment.
func ExampleProvider_Close() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	ctx, rate := context.Background(), trypema.PerSecond(10)

	before, _ := redislimit.New(conn, redislimit.Options{})
	if _, err := before.Absolute().AllowN(ctx, "user:42", rate, 60); err != nil {
		panic(err)
	}
	if err := before.Close(); err != nil {
		panic(err)
	}
	_, err := before.Absolute().Allow(ctx, "user:42", rate)
	fmt.Println(err)

	after, _ := redislimit.New(conn, redislimit.Options{})
	defer after.Close()
	u, _ := after.Absolute().Usage(ctx, "user:42", rate)
	fmt.Println(u.Total, u.Remaining)
	// Output:
	// trypema: closed
	// 60 40
}
