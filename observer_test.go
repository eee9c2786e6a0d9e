package trypema_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
)

func byStrategy(m *trypema.Meters) (absolute, suppressed trypema.Meter) {
	all := m.All()
	return all[0], all[1]
}

func measured(s trypema.Stats) (n uint64) {
	for _, b := range s.Latency {
		n += b
	}
	return n
}

// Every call of Allow and AllowN is counted once, whoever makes it and by whichever way it is decided; other
// verbs are not.
func TestObserverCountsEveryDecision(t *testing.T) {
	meters := new(trypema.Meters)
	l := newLocal(t, trypema.Options{Window: time.Hour, Observer: meters, Name: "api"})
	var wg sync.WaitGroup
	var mu sync.Mutex
	want := map[string]trypema.Counters{}
	for c := range 8 {
		for name, limiter := range each(l) {
			wg.Go(func() {
				var mine trypema.Counters
				for i := range 5_000 {
					key, rate := []string{"hot", fmt.Sprint("k", i%500)}[i%2], trypema.PerHour(5000)
					n := uint64(i % 4) // 0 is an error
					if i%100 == 99 {
						n = 6000 // never fits
					}
					d, err := limiter.AllowN(t.Context(), key, rate, n)
					switch {
					case err != nil:
						mine.Errors++
					case d.Outcome == trypema.OutcomeAllowed:
						mine.Allowed++
					case d.Outcome == trypema.OutcomeSuppressed:
						mine.Suppressed++
					default:
						mine.Rejected++
					}
					if i%50 == c {
						limiter.Peek(t.Context(), key, rate, 1)
						limiter.Peek(t.Context(), "", 0, 1)
						limiter.Usage(t.Context(), key, rate)
						limiter.Set(t.Context(), "other", trypema.Always(), 2, trypema.Replace)
						limiter.Delete(t.Context(), "other")
					}
				}
				mu.Lock()
				defer mu.Unlock()
				sum := want[name]
				sum.Allowed += mine.Allowed
				sum.Rejected += mine.Rejected
				sum.Suppressed += mine.Suppressed
				sum.Errors += mine.Errors
				want[name] = sum
			})
		}
	}
	wg.Wait()
	absolute, suppressed := byStrategy(meters)
	for name, m := range map[string]trypema.Meter{"Absolute": absolute, "Suppressed": suppressed} {
		s := m.Read()
		got := s.Counters
		if n := measured(s); n < 256 || n > 40_000 || got.LatencySum <= 0 {
			t.Errorf("%s: %d measured, %v together", name, n, got.LatencySum)
		}
		got.Latency, got.LatencySum = trypema.Counters{}.Latency, 0
		if got != want[name] {
			t.Errorf("%s: counted %+v, want %+v", name, got, want[name])
		}
		if got.Errors == 0 || got.Allowed == 0 || got.Rejected+got.Suppressed == 0 {
			t.Errorf("%s: %+v, want some of all", name, got)
		}
		if m.Provider != "local" || m.Policy != "api" || s.Keys == 0 || s.Ended {
			t.Errorf("%s: %s %q with %d keys, ended %v", name, m.Provider, m.Policy, s.Keys, s.Ended)
		}
	}
}

// After Close the counters stay, and calls are errors.
func TestObserverAfterClose(t *testing.T) {
	meters := new(trypema.Meters)
	l := newLocal(t, trypema.Options{Observer: meters})
	l.Absolute().Allow(t.Context(), "k", 1)
	l.Close()
	l.Absolute().Allow(t.Context(), "k", 1)
	absolute, _ := byStrategy(meters)
	if s := absolute.Read(); s.Allowed != 1 || s.Errors != 1 || s.Keys != 0 || s.Ended {
		t.Errorf("%+v", s)
	}
	runtime.KeepAlive(l)
}

// A provider that is dropped is collected though it is observed; what it counted stays in the sum.
func TestObserverKeepsNoProvider(t *testing.T) {
	meters := new(trypema.Meters)
	const providers = 50
	before := heap()
	for range providers {
		l, err := trypema.NewLocal(trypema.Options{Window: time.Hour, Observer: meters})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			l.Suppressed().Allow(t.Context(), fmt.Sprint(i), 1)
		}
	}
	_, suppressed := byStrategy(meters)
	for range 50 {
		runtime.GC()
		if suppressed.Read().Keys == 0 {
			break
		}
	}
	if s := suppressed.Read(); s.Keys != 0 || s.Allowed != 1000*providers {
		t.Errorf("%d keys, %d allowed; want 0 and %d", s.Keys, s.Allowed, 1000*providers)
	}
	if held := int64(heap()) - int64(before); held > 1<<20 {
		t.Errorf("%d dropped providers hold %d bytes", providers, held)
	}
	runtime.KeepAlive(meters)
}

// Providers of one name are added up, others are apart, and all of Observers are told.
func TestMetersAddUp(t *testing.T) {
	a, b := new(trypema.Meters), new(trypema.Meters)
	var kept []*trypema.Local
	for _, name := range []string{"login", "api", "login"} {
		l := newLocal(t, trypema.Options{Observer: trypema.Observers(a, b), Name: name})
		kept = append(kept, l)
		for range 15 {
			l.Absolute().Allow(t.Context(), "k of "+name, 1)
		}
	}
	for _, meters := range []*trypema.Meters{a, b} {
		var got []string
		for _, m := range meters.All() {
			s := m.Read()
			line := fmt.Sprintf("%s %s %d %d", m.Policy, m.Strategy, s.Allowed, s.Rejected)
			for key, denied := range m.TopLimited(3) {
				line += fmt.Sprintf(" %s: %d", key, denied)
			}
			got = append(got, line)
		}
		want := "[api absolute 10 5 k of api: 5 api suppressed 0 0 " +
			"login absolute 20 10 k of login: 10 login suppressed 0 0]"
		if fmt.Sprint(got) != want {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	runtime.KeepAlive(kept)
}

// The keys that are denied most are found among many, in their order, and are forgotten with time.
func TestTopLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meters := new(trypema.Meters)
		l := newLocal(t, trypema.Options{Observer: meters})
		for i := range 100_000 {
			key := fmt.Sprint("one of many ", i%5000)
			switch {
			case i%4 == 0:
				key = "worst"
			case i%8 == 1:
				key = "bad"
			}
			l.Absolute().AllowN(t.Context(), key, 1, 11)
		}
		absolute, _ := byStrategy(meters)
		var keys []string
		var counts []uint64
		for key, denied := range absolute.TopLimited(2) {
			keys, counts = append(keys, key), append(counts, denied)
		}
		if fmt.Sprint(keys) != "[worst bad]" || counts[0] < 17_500 || counts[0] > 32_500 ||
			counts[1] < 7_500 || counts[1] > 17_500 {
			t.Errorf("%v %v, want about 25,000 and 12,500", keys, counts)
		}
		n := 0
		for range absolute.TopLimited(1 << 20) {
			n++
		}
		if n > 128 {
			t.Errorf("%d keys", n)
		}
		time.Sleep(time.Hour)
		for key, denied := range absolute.TopLimited(10) {
			t.Errorf("%d denials of %q after an hour", denied, key)
		}
	})
}
