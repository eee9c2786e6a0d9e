package trypema_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trypema/trypema"
)

// tiers are the plans that the examples below are about.
func tiers() (plans *trypema.Policies, done func() error) {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	p, err := trypema.NewPolicies(limits,
		trypema.Policy{Name: "free", Cost: 2, Limits: []trypema.Limit{
			{Name: "minute", Rate: trypema.PerMinute(20), Window: time.Minute},
			{Name: "day", Rate: trypema.PerDay(1000), Window: 24 * time.Hour},
		}},
		trypema.Policy{Name: "pro", Limits: []trypema.Limit{
			{Name: "minute", Rate: trypema.PerMinute(600), Window: time.Minute},
		}})
	if err != nil {
		panic(err)
	}
	return p, limits.Close
}

// What a customer may do is a matter of the plan. What has been used is one of the customer, as the plans are
// of one group.
func ExampleNewPolicies() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	plans, err := trypema.NewPolicies(limits,
		trypema.Policy{Name: "free", Group: "plans",
			Limits: []trypema.Limit{{Rate: trypema.PerMinute(20), Window: time.Minute}}},
		trypema.Policy{Name: "pro", Group: "plans",
			Limits: []trypema.Limit{{Rate: trypema.PerMinute(600), Window: time.Minute}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, plan := range []string{"free", "pro", "gold"} {
		d, err := plans.Allow(ctx, plan, "customer:42")
		fmt.Println(d.Allowed, d.Remaining, errors.Is(err, trypema.ErrUnknownPolicy))
	}
	// Output:
	// true 19 false
	// true 598 false
	// false 0 true
}

func ExamplePolicy_Check() {
	fmt.Println(trypema.Policy{
		Name:   "export",
		Limits: []trypema.Limit{{Name: "hour", Rate: trypema.PerHour(10), Window: time.Hour}},
		Cost:   25,
	}.Check())
	// Output: trypema: policy "export": cost is 25; it must be at most 10, which is all that limit "hour" can hold
}

// A call costs what the policy says.
func ExamplePolicies_Allow() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	d, err := plans.Allow(context.Background(), "free", "customer:42")
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 18 <nil>
}

func ExamplePolicies_AllowN() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	d, err := plans.AllowN(context.Background(), "free", "customer:42", 21)
	fmt.Println(d.Allowed, d.RefusedBy, err)
	// Output: false minute <nil>
}

func ExamplePolicies_Peek() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	d, err := plans.Peek(context.Background(), "free", "customer:42", 0)
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 20 <nil>
}

func ExamplePolicies_Reserve() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	r, err := plans.Reserve(ctx, "pro", "customer:42", 500, time.Minute)
	if err != nil || !r.Allowed {
		fmt.Println("not now", err)
		return
	}
	fmt.Println(r.Remaining, r.Commit(ctx, 123))
	// Output: 100 <nil>
}

func ExamplePolicies_Usage() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	if _, err := plans.AllowN(ctx, "free", "customer:42", 7); err != nil {
		fmt.Println(err)
		return
	}
	used, err := plans.Usage(ctx, "free", "customer:42")
	if err != nil {
		fmt.Println(err)
		return
	}
	free, _ := plans.Get("free")
	for i, u := range used {
		fmt.Println(free.Limits[i].Label(), u.Total, "of", u.Limit)
	}
	// Output:
	// minute 7 of 20
	// day 7 of 1000
}

func ExamplePolicies_Delete() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	if _, err := plans.AllowN(ctx, "free", "customer:42", 20); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plans.Delete(ctx, "free", "customer:42"))
	d, err := plans.Allow(ctx, "free", "customer:42")
	fmt.Println(d.Allowed, err)
	// Output:
	// <nil>
	// true <nil>
}

// The rate of a plan is raised, and what was used of it stays used.
func ExamplePolicies_Swap() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	d, err := plans.AllowN(ctx, "pro", "customer:42", 600)
	fmt.Println(d.Remaining, err)
	err = plans.Swap(trypema.Policy{Name: "pro",
		Limits: []trypema.Limit{{Rate: trypema.PerMinute(1000), Window: time.Minute}}})
	fmt.Println(err)
	d, err = plans.Peek(ctx, "pro", "customer:42", 1)
	fmt.Println(d.Remaining, err)
	// Output:
	// 0 <nil>
	// <nil>
	// 400 <nil>
}

func ExamplePolicies_Names() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	fmt.Println(plans.Names())
	// Output: [free pro]
}

func ExamplePolicies_Get() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	pro, ok := plans.Get("pro")
	fmt.Println(pro.Limits[0].Name, pro.Strategy, pro.Cost, ok)
	// Output: minute absolute 1 true
}

// Policies are counted by their names.
func ExamplePolicies_Observe() {
	var meters trypema.Meters
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	plans, err := trypema.NewPolicies(limits, trypema.Policy{
		Name:   "free",
		Limits: []trypema.Limit{{Rate: trypema.PerHour(2), Window: time.Hour}},
	})
	if err != nil {
		panic(err)
	}
	plans.Observe(&meters)
	for range 3 {
		if _, err := plans.Allow(context.Background(), "free", "user:42"); err != nil {
			panic(err)
		}
	}
	for _, m := range meters.All() {
		s := m.Read()
		fmt.Println(m.Policy, s.Allowed, s.Rejected)
	}
	// Output: free 2 1
}

// A policy by itself, for code that knows nothing of names.
func ExamplePolicies_Use() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	free, err := plans.Use("free")
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := free.Allow(context.Background(), "customer:42")
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 18 <nil>
}

func ExamplePolicies_Wait() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	d, err := plans.Wait(context.Background(), "pro", "customer:42")
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 599 <nil>
}

func ExamplePolicies_WaitN() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	d, err := plans.WaitN(context.Background(), "pro", "customer:42", 100)
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 500 <nil>
}

// A call that must fit two policies: if one refuses, neither counts it.
func ExamplePolicies_Ask() {
	plans, done := tiers()
	defer done() //nolint:errcheck // it returns nil
	ctx := context.Background()
	for range 2 {
		d, err := trypema.All(ctx, plans.Ask("pro", "acme", 15), plans.Ask("free", "user:42", 15))
		fmt.Println(d.Allowed, d.Limit, err)
	}
	d, err := plans.Peek(ctx, "pro", "acme", 0)
	fmt.Println(d.Remaining, err)
	// Output:
	// true 20 <nil>
	// false 20 <nil>
	// 585 <nil>
}
