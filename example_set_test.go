package trypema_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trypema/trypema"
)

// An operator sets what a tenant has used, whatever the limiter has counted.
func ExampleAlways() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()

	r, _ := limits.Absolute().Set(context.Background(), "tenant", trypema.Always(), 750, trypema.Replace)
	fmt.Println(r.Matched, r.Previous, r.Current)
	// Output: true 0 750
}

// Counts that were saved are restored after a restart, unless there are calls already.
func ExampleEqual() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	quota, ctx := limits.Absolute(), context.Background()

	if _, err := quota.Allow(ctx, "bob", 10); err != nil {
		panic(err)
	}
	for _, key := range []string{"ada", "bob"} {
		r, _ := quota.Set(ctx, key, trypema.Equal(0), 40, trypema.Replace)
		fmt.Println(key, r.Matched, r.Current)
	}
	// Output:
	// ada true 40
	// bob false 1
}

// What another system counts is the truth; where the limiter agrees with it, nothing is written.
func ExampleNotEqual() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	quota, ctx := limits.Absolute(), context.Background()

	for _, billed := range []uint64{12, 12, 15} {
		r, _ := quota.Set(ctx, "tenant", trypema.NotEqual(billed), billed, trypema.KeepNewest)
		fmt.Println(r.Matched, r.Previous, r.Current)
	}
	// Output:
	// true 0 12
	// false 12 12
	// true 12 15
}

// A query costs what it has read, but at least ten.
func ExampleLess() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	quota, ctx := limits.Absolute(), context.Background()

	if _, err := quota.AllowN(ctx, "query:7", 100, 3); err != nil {
		panic(err)
	}
	r, _ := quota.Set(ctx, "query:7", trypema.Less(10), 10, trypema.KeepNewest)
	fmt.Println(r.Matched, r.Previous, r.Current)
	// Output: true 3 10
}

// After a downgrade, a tenant does not have to wait for more to expire than the new plan allows.
func ExampleGreater() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Hour})
	defer limits.Close()
	quota, ctx := limits.Absolute(), context.Background()

	if _, err := quota.AllowN(ctx, "tenant", trypema.PerHour(1000), 800); err != nil {
		panic(err)
	}
	r, _ := quota.Set(ctx, "tenant", trypema.Greater(100), 100, trypema.KeepOldest)
	fmt.Println(r.Matched, r.Previous, r.Current)
	// Output: true 800 100
}

func ExampleCondition_Holds() {
	when := trypema.Greater(100)
	fmt.Println(when.Holds(100), when.Holds(101))
	// Output: false true
}

func ExampleCondition_String() {
	fmt.Println(trypema.Always(), trypema.Less(5))
	// Output: Always() Less(5)
}

// An import has reserved 600 rows in two steps, and used half of them. Which half stays says when there is
// room again.
func ExampleHistory() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute, Bucket: time.Millisecond})
	defer limits.Close()
	rows, ctx, rate := limits.Absolute(), context.Background(), trypema.PerMinute(300)

	keeps := []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}
	for range 2 {
		for _, keep := range keeps {
			if _, err := rows.AllowN(ctx, keep.String(), trypema.Unlimited, 300); err != nil {
				panic(err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, keep := range keeps {
		if _, err := rows.Set(ctx, keep.String(), trypema.Always(), 300, keep); err != nil {
			panic(err)
		}
	}

	var waits []time.Duration
	for _, keep := range keeps {
		d, _ := rows.Peek(ctx, keep.String(), rate, 300)
		waits = append(waits, d.RetryAfter)
	}
	fmt.Println("Replace waits longer than KeepNewest:", waits[0] > waits[1])
	fmt.Println("KeepNewest waits longer than KeepOldest:", waits[1] > waits[2])
	// Output:
	// Replace waits longer than KeepNewest: true
	// KeepNewest waits longer than KeepOldest: true
}

func ExampleHistory_String() {
	fmt.Println(trypema.Replace, trypema.KeepNewest, trypema.KeepOldest)
	// Output: Replace KeepNewest KeepOldest
}
