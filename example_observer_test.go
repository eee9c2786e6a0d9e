package trypema_test

import (
	"context"
	"fmt"

	"github.com/trypema/trypema"
)

// seen is an Observer that says what it is told of. Most programs need none of their own: see Meters.
type seen struct{}

func (seen) Observe(m trypema.Meter) {
	fmt.Printf("%s: %s, %s\n", m.Policy, m.Provider, m.Strategy)
}

func ExampleObserver_observe() {
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: seen{}})
	if err != nil {
		panic(err)
	}
	limits.Close()
	// Output:
	// login: local, absolute
	// login: local, suppressed
}

func ExampleObservers() {
	mine := new(trypema.Meters)
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: trypema.Observers(mine, seen{})})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	fmt.Println(len(mine.All()), "meters")
	// Output:
	// login: local, absolute
	// login: local, suppressed
	// 2 meters
}

func ExampleMeters() {
	meters := new(trypema.Meters)
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: meters})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	for range 12 {
		if _, err := limits.Absolute().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
			panic(err)
		}
	}

	absolute := meters.All()[0]
	s := absolute.Read()
	fmt.Println(s.Allowed, "allowed,", s.Rejected, "rejected,", s.Keys, "key")
	for key, denied := range absolute.TopLimited(10) {
		fmt.Println(key, denied)
	}
	// Output:
	// 10 allowed, 2 rejected, 1 key
	// ann 2
}

// One Meters takes any number of providers; those of one name are added up.
func ExampleMeters_Observe() {
	meters := new(trypema.Meters)
	for range 3 {
		limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: meters})
		if err != nil {
			panic(err)
		}
		if _, err := limits.Suppressed().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
			panic(err)
		}
		limits.Close() // what was counted stays
	}
	fmt.Println(meters.All()[1].Read().Allowed)
	// Output: 3
}

func ExampleMeters_All() {
	meters := new(trypema.Meters)
	for _, policy := range []string{"login", "api"} {
		limits, err := trypema.NewLocal(trypema.Options{Name: policy, Observer: meters})
		if err != nil {
			panic(err)
		}
		limits.Close()
	}
	for _, m := range meters.All() {
		fmt.Println(m.Policy, m.Strategy)
	}
	// Output:
	// api absolute
	// api suppressed
	// login absolute
	// login suppressed
}
