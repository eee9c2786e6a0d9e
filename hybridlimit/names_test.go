package hybridlimit_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

type strategies interface {
	trypema.Binder
	Absolute() trypema.Limiter
	Suppressed() trypema.Limiter
}

// owner is somebody with counts of its own: a plain key, or a key by a policy.
type owner struct {
	what   string
	allow  func(cost uint64) (trypema.Decision, error)
	peek   func() (trypema.Decision, error)
	delete func() error
}

// ownersOf returns those of a provider, with keys and groups that are easily taken for each other.
func ownersOf(t *testing.T, p strategies, prefix string, s trypema.Strategy) (all []owner) {
	t.Helper()
	const window, capacity = time.Minute, 1000
	l := p.Absolute()
	if s == trypema.StrategySuppressed {
		l = p.Suppressed()
	}
	rate := trypema.Per(capacity, window)
	limit := trypema.Limit{Rate: rate, Window: window}
	m, err := p.Bind(s, limit)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{
		"bob", "free:bob", "free:", "login:42", "42", "\xfffree:bob", "\xff:free:bob", "\xff",
		"}", "bob}:a:1m0s", "bob}:a:1m0s:free", "}:a1:1m0s",
	} {
		o := owner{what: fmt.Sprintf("prefix %q, key %q", prefix, key)}
		if i%2 == 0 { // several limits share the window of the one
			o.allow = func(cost uint64) (trypema.Decision, error) { return l.AllowN(ctx, key, rate, cost) }
			o.peek = func() (trypema.Decision, error) { return m.Peek(ctx, key, 1) }
			o.delete = func() error { return m.Delete(ctx, key) }
		} else {
			o.allow = func(cost uint64) (trypema.Decision, error) { return m.AllowN(ctx, key, cost) }
			o.peek = func() (trypema.Decision, error) { return l.Peek(ctx, key, rate, 1) }
			o.delete = func() error { return l.Delete(ctx, key) }
		}
		all = append(all, o)
	}
	for _, group := range []string{"free", "ÿ", "}", "a", "1m0s", "login"} {
		policy := trypema.Policy{Name: "p", Group: group, Strategy: s, Limits: []trypema.Limit{limit}}
		policies, err := trypema.NewPolicies(p, policy)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"bob", "", "free:bob", "}:a:1m0s", "42"} {
			all = append(all, owner{
				what:   fmt.Sprintf("prefix %q, group %q, key %q", prefix, group, key),
				allow:  func(cost uint64) (trypema.Decision, error) { return policies.AllowN(ctx, "p", key, cost) },
				peek:   func() (trypema.Decision, error) { return policies.Peek(ctx, "p", key, 1) },
				delete: func() error { return policies.Delete(ctx, "p", key) },
			})
		}
	}
	return all
}

// No two of (prefix, group, key) share counts, whatever bytes they consist of; on no provider, also while the
// failure policy decides.
func TestCountsAreNotShared(t *testing.T) {
	minute := trypema.Options{Window: time.Minute}
	redis := func(t *testing.T, f *fakeredis.Server, prefix string) strategies {
		p, err := redislimit.New(f, redislimit.Options{Prefix: prefix, Options: minute, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	hybrid := func(t *testing.T, f *fakeredis.Server, prefix string) strategies {
		return open(t, f, hybridlimit.Options{Options: redislimit.Options{Prefix: prefix, Options: minute}})
	}
	for _, test := range []struct {
		name     string
		prefixes []string
		gone     bool
		open     func(t *testing.T, f *fakeredis.Server, prefix string) strategies
	}{
		{"local", []string{""}, false, func(t *testing.T, _ *fakeredis.Server, _ string) strategies {
			p, err := trypema.NewLocal(minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return p
		}},
		{"redis", []string{"shop", "shop:login", "shop:login:", "shop%3Alogin"}, false, redis},
		{"redis, gone", []string{"shop"}, true, redis},
		{"hybrid", []string{"shop", "shop:login", "shop:login:", "shop%3Alogin"}, false, hybrid},
		{"hybrid, gone", []string{"shop"}, true, hybrid},
	} {
		for _, s := range []trypema.Strategy{trypema.StrategyAbsolute, trypema.StrategySuppressed} {
			t.Run(fmt.Sprint(test.name, " ", s), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeredis.New()
					if test.gone {
						f.Fault = func(string) ([]any, error) { return nil, errors.New("LOADING") }
						defer func() { f.Fault = nil }()
					}
					var all []owner
					for _, prefix := range test.prefixes {
						all = append(all, ownersOf(t, test.open(t, f, prefix), prefix, s)...)
					}
					for i, o := range all { // each has counts that nobody else has
						if d, err := o.allow(uint64(i + 1)); err != nil || !d.Allowed {
							t.Fatalf("%s: %+v, %v", o.what, d, err)
						}
					}
					check := func(deleted int) {
						for i, o := range all {
							want := uint64(1000 - i - 1)
							if i == deleted {
								want = 1000
							}
							if d, err := o.peek(); err != nil || d.Remaining != want {
								t.Errorf("%s: %+v, %v, want %d remaining", o.what, d, err, want)
							}
						}
					}
					check(-1)
					if test.gone {
						return // Delete needs Redis
					}
					last := len(all) - 1
					if err := all[last].delete(); err != nil {
						t.Fatal(err)
					}
					check(last)
				})
			})
		}
	}
}
