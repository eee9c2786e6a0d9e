package hybridlimit_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// Two servers decide by themselves, and together never pass the limit.
func Example() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	options := hybridlimit.Options{Options: redislimit.Options{Options: trypema.Options{Window: time.Minute}}}

	var admitted atomic.Int64
	serve := func() {
		limits, err := hybridlimit.New(conn, options)
		if err != nil {
			panic(err)
		}
		defer limits.Close()

		for range 1000 {
			d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.PerMinute(100))
			if err != nil {
				panic(err)
			}
			if d.Allowed {
				admitted.Add(1)
			}
		}
	}
	var servers sync.WaitGroup
	servers.Go(serve)
	servers.Go(serve)
	servers.Wait()
	fmt.Println(admitted.Load() <= 100)
	// Output: true
}

// The options of the Redis provider are here, too, and one says how often to settle with Redis.
func ExampleNew() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := hybridlimit.New(conn, hybridlimit.Options{
		Options: redislimit.Options{
			Options:   trypema.Options{Window: time.Minute},
			OnFailure: redislimit.FailClosed,
		},
		SyncInterval: 20 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	d, err := limits.Absolute().Allow(context.Background(), "user:42", trypema.PerMinute(100))
	fmt.Println(d.Outcome, d.Limit, err)
	// Output: allowed 100 <nil>
}

// Where no call may wait, not even the first for a key, that is denied instead. Those that come a moment
// later are answered.
func ExampleEmptyPolicy() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := hybridlimit.New(conn, hybridlimit.Options{OnEmpty: hybridlimit.EmptyReject})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	jobs, ctx, rate := limits.Absolute(), context.Background(), trypema.PerSecond(10)

	d, _ := jobs.Allow(ctx, "user:42", rate)
	fmt.Println(d.Outcome)
	for !d.Allowed {
		time.Sleep(10 * time.Millisecond)
		d, _ = jobs.Allow(ctx, "user:42", rate)
	}
	fmt.Println(d.Outcome)
	// Output:
	// rejected
	// allowed
}

func ExampleEmptyPolicy_String() {
	fmt.Println(hybridlimit.EmptyWait, hybridlimit.EmptyReject)
	// Output: EmptyWait EmptyReject
}

func ExampleOptions_WithDefaults() {
	o, err := hybridlimit.Options{}.WithDefaults()
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Window, o.SyncInterval, o.OnEmpty, o.OnFailure)

	_, err = hybridlimit.Options{SyncInterval: time.Minute}.WithDefaults()
	fmt.Println(err)
	// Output:
	// 10s 50ms EmptyWait FailLocal
	// trypema: hybridlimit.Options.SyncInterval is 1m0s; it must be from 1ms to Options.Window (10s)
}

func ExampleProvider_Absolute() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := hybridlimit.New(conn, hybridlimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	jobs, ctx := limits.Absolute(), context.Background()

	d, _ := jobs.AllowN(ctx, "import", trypema.PerSecond(10), 60)
	fmt.Println(d.Outcome, d.Remaining)
	d, _ = jobs.AllowN(ctx, "import", trypema.PerSecond(10), 60)
	fmt.Println(d.Outcome, d.Remaining)
	// Output:
	// allowed 40
	// rejected 40
}

func ExampleProvider_Suppressed() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := hybridlimit.New(conn, hybridlimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	api, ctx, rate := limits.Suppressed(), context.Background(), trypema.PerSecond(10)

	for range 1000 {
		if _, err := api.Allow(ctx, "api", rate); err != nil {
			panic(err)
		}
	}
	u, _ := api.Usage(ctx, "api", rate)
	fmt.Println(u.Limit, u.Total, u.Total-u.Declined <= 150)
	// Output: 100 1000 true
}

func ExampleProvider_Len() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := hybridlimit.New(conn, hybridlimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	for _, key := range []string{"ada", "bob", "ada"} {
		if _, err := limits.Absolute().Allow(context.Background(), key, 10); err != nil {
			panic(err)
		}
	}
	fmt.Println(limits.Len())
	// Output: 2
}

// What an instance has admitted shows to others when it has settled. Flush does not wait until it does so by
// itself.
func ExampleProvider_Flush() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	ctx, rate := context.Background(), trypema.PerSecond(10)
	here, _ := hybridlimit.New(conn, hybridlimit.Options{})
	defer here.Close()
	there, _ := hybridlimit.New(conn, hybridlimit.Options{})
	defer there.Close()

	if _, err := here.Absolute().AllowN(ctx, "user:42", rate, 60); err != nil {
		panic(err)
	}
	if err := here.Flush(ctx); err != nil {
		panic(err)
	}
	u, _ := there.Absolute().Usage(ctx, "user:42", rate)
	fmt.Println(u.Total)
	// Output: 60
}

// Close gives back what is on lease: the next instance has all that was not used.
func ExampleProvider_Close() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	ctx, rate := context.Background(), trypema.PerSecond(10)

	before, _ := hybridlimit.New(conn, hybridlimit.Options{})
	if _, err := before.Absolute().AllowN(ctx, "user:42", rate, 30); err != nil {
		panic(err)
	}
	if err := before.Close(); err != nil {
		panic(err)
	}

	after, _ := hybridlimit.New(conn, hybridlimit.Options{})
	defer after.Close()
	d, _ := after.Absolute().AllowN(ctx, "user:42", rate, 70)
	fmt.Println(d.Outcome, d.Remaining)
	// Output: allowed 0
}
