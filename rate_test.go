package trypema_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
)

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		name   string
		rate   trypema.Rate
		window time.Duration
		want   uint64 // 0 is an error
	}{
		{"whole", trypema.PerSecond(100), 10 * time.Second, 1000},
		{"fraction is cut", trypema.PerSecond(5.5), time.Second, 5},
		{"fraction adds up", trypema.PerSecond(5.5), 2 * time.Second, 11},
		{"half an event per second", trypema.PerSecond(0.5), 2 * time.Second, 1},
		{"just too small", trypema.PerSecond(0.5), 1999 * time.Millisecond, 0},
		{"very small", 1e-9, 30 * 24 * time.Hour, 0},
		{"small in a long window", 1e-9, 100 * 365 * 24 * time.Hour, 3},
		{"per day", trypema.PerDay(7), 24 * time.Hour, 7},
		{"per", trypema.Per(3, 90*time.Second), 90 * time.Second, 3},
		{"per no time", trypema.Per(3, 0), time.Second, 0},
		{"just below", trypema.PerSecond(2.999999999999), time.Second, 2},
		{"large", trypema.PerSecond(1e15), time.Second, 1e15},
		{"larger than a count", 1e30, time.Second, math.MaxInt64},
		{"unlimited", trypema.Unlimited, time.Millisecond, math.MaxInt64},
		{"infinite", trypema.Rate(math.Inf(1)), time.Second, 0},
		{"negative infinite", trypema.Rate(math.Inf(-1)), time.Second, 0},
		{"not a number", trypema.Rate(math.NaN()), time.Second, 0},
		{"zero", 0, time.Second, 0},
		{"negative", -1, time.Second, 0},
	} {
		got, err := test.rate.Capacity(test.window)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %v per second in %v: %d, %v, want %d", test.name, float64(test.rate), test.window,
				got, err, test.want)
		}
		if err != nil && !errors.Is(err, trypema.ErrInvalidRate) {
			t.Errorf("%s: %v is not ErrInvalidRate", test.name, err)
		}
	}
}

// n per hour in an hour is n, however n/3600 is rounded.
func TestCapacityOfTheSameSpanIsExact(t *testing.T) {
	spans := []time.Duration{time.Millisecond, 300 * time.Millisecond, time.Second, 7 * time.Second,
		time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}
	for i := range 100_000 {
		n := float64(i + 1)
		if i%2 == 1 {
			n = float64(rand.Uint64N(1e12) + 1)
		}
		for _, span := range spans {
			if got, err := trypema.Per(n, span).Capacity(span); got != uint64(n) {
				t.Fatalf("%v per %v: capacity %d, %v", n, span, got, err)
			}
		}
	}
	for unit, rate := range map[time.Duration]func(float64) trypema.Rate{
		time.Second: trypema.PerSecond, time.Minute: trypema.PerMinute,
		time.Hour: trypema.PerHour, 24 * time.Hour: trypema.PerDay,
	} {
		if rate(7) != trypema.Per(7, unit) {
			t.Errorf("7 per %v is %v per second", unit, rate(7))
		}
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		o    trypema.Options
		want trypema.Options
		says string
	}{
		{
			o:    trypema.Options{},
			want: trypema.Options{Window: 10 * time.Second, Bucket: 100 * time.Millisecond, HardLimitFactor: 1.5},
		},
		{
			o: trypema.Options{Window: 50 * time.Millisecond, HardLimitFactor: 1, MaxKeys: 3},
			want: trypema.Options{
				Window: 50 * time.Millisecond, Bucket: time.Millisecond, HardLimitFactor: 1, MaxKeys: 3,
			},
		},
		{
			o:    trypema.Options{Window: time.Millisecond, Bucket: time.Millisecond},
			want: trypema.Options{Window: time.Millisecond, Bucket: time.Millisecond, HardLimitFactor: 1.5},
		},
		{o: trypema.Options{Window: -1}, says: "Options.Window is -1ns"},
		{o: trypema.Options{Window: time.Microsecond}, says: "from 1ms to"},
		{o: trypema.Options{Window: math.MaxInt64}, says: "Options.Window"},
		{o: trypema.Options{Bucket: time.Microsecond}, says: "Options.Bucket is 1µs; it must be at least 1ms"},
		{o: trypema.Options{Bucket: -time.Second}, says: "Options.Bucket is -1s"},
		{o: trypema.Options{Window: time.Second, Bucket: 2 * time.Second},
			says: "Options.Bucket is 2s, longer than Options.Window (1s)"},
		{o: trypema.Options{HardLimitFactor: 0.99}, says: "Options.HardLimitFactor is 0.99"},
		{o: trypema.Options{HardLimitFactor: -1}, says: "Options.HardLimitFactor is -1"},
		{o: trypema.Options{HardLimitFactor: math.Inf(1)}, says: "finite"},
		{o: trypema.Options{HardLimitFactor: math.NaN()}, says: "Options.HardLimitFactor is NaN"},
		{o: trypema.Options{MaxKeys: -1}, says: "Options.MaxKeys is -1"},
	} {
		got, err := test.o.WithDefaults()
		if test.says == "" {
			if err != nil || got != test.want {
				t.Errorf("%+v: %+v, %v", test.o, got, err)
			}
			continue
		}
		if !errors.Is(err, trypema.ErrInvalidOptions) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v, want ErrInvalidOptions that says %q", test.o, err, test.says)
		}
		if l, err := trypema.NewLocal(test.o); l != nil || err == nil {
			t.Errorf("NewLocal took %+v", test.o)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[interface{ String() string }]string{
		trypema.OutcomeAllowed:    "allowed",
		trypema.OutcomeRejected:   "rejected",
		trypema.OutcomeSuppressed: "suppressed",
		trypema.Outcome(9):        "Outcome(9)",
		trypema.Always():          "Always()",
		trypema.Equal(1):          "Equal(1)",
		trypema.NotEqual(2):       "NotEqual(2)",
		trypema.Less(3):           "Less(3)",
		trypema.Greater(4):        "Greater(4)",
		trypema.Replace:           "Replace",
		trypema.KeepNewest:        "KeepNewest",
		trypema.KeepOldest:        "KeepOldest",
		trypema.History(9):        "History(9)",
	} {
		if got.String() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
