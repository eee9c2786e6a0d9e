package trypema_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trypema/trypema"
)

// A rate need not be a whole number: here it is one event every two seconds.
func ExamplePerSecond() {
	c, _ := trypema.PerSecond(0.5).Capacity(time.Minute)
	fmt.Println(c)
	// Output: 30
}

// The unit of the rate and the window are two things: with a window of ten seconds, nobody spends a minute's
// calls at once.
func ExamplePerMinute() {
	c, _ := trypema.PerMinute(90).Capacity(10 * time.Second)
	fmt.Println(c)
	// Output: 15
}

func ExamplePerHour() {
	fmt.Println(trypema.PerHour(1800) == trypema.PerSecond(0.5))
	// Output: true
}

func ExamplePerDay() {
	c, _ := trypema.PerDay(10_000).Capacity(24 * time.Hour)
	fmt.Println(c)
	// Output: 10000
}

// Five in a quarter of an hour, or in whatever else a contract says.
func ExamplePer() {
	c, _ := trypema.Per(5, 15*time.Minute).Capacity(15 * time.Minute)
	fmt.Println(c)
	// Output: 5
}

// A program checks the limits in its configuration when it starts, not at the first call.
func ExampleRate_Capacity() {
	for _, perHour := range []float64{9000, 90, -1} {
		c, err := trypema.PerHour(perHour).Capacity(10 * time.Second)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(c)
	}
	// Output:
	// 25
	// trypema: rate is 1.5/m, less than one event in a window of 10s; raise the rate or lengthen the window
	// trypema: rate is -1/h; it must be above 0
}

// The rate belongs to the call. Who pays is not held up, but still counted.
func ExampleRate_unlimited() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute})
	defer limits.Close()
	renders, ctx := limits.Absolute(), context.Background()
	plan := map[string]trypema.Rate{"free": trypema.PerMinute(10), "enterprise": trypema.Unlimited}

	for range 25 {
		if d, _ := renders.Allow(ctx, "ada", plan["enterprise"]); !d.Allowed {
			panic("held up")
		}
	}
	u, _ := renders.Usage(ctx, "ada", plan["free"]) // what a change of plan would mean
	fmt.Println(u.Total, u.Limit, u.Remaining)
	// Output: 25 10 0
}

func ExampleRate_String() {
	fmt.Println(trypema.PerSecond(100), trypema.PerMinute(5), trypema.PerHour(.5), trypema.Unlimited)
	// Output: 100/s 5/m 12/d unlimited
}

func ExampleParseRate() {
	r, err := trypema.ParseRate("5/15m")
	fmt.Println(r, err)
	_, err = trypema.ParseRate("often")
	fmt.Println(err)
	// Output:
	// 20/h <nil>
	// trypema: rate is "often"; it must be a number per time, as in 10/s, 1000/h, 20/d or 5/15m and above 0, or unlimited
}

func ExampleRate_MarshalText() {
	text, err := trypema.PerMinute(5).MarshalText()
	fmt.Println(string(text), err)
	// Output: 5/m <nil>
}

func ExampleRate_UnmarshalText() {
	var r trypema.Rate
	err := r.UnmarshalText([]byte("1000/h"))
	fmt.Println(r, err)
	// Output: 1000/h <nil>
}
