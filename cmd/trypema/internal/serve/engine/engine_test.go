package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

// start returns an engine on Local with config1. It is ended with the test.
func start(t testing.TB, o Options) *Engine {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	e := New(limits, o)
	t.Cleanup(e.Close)
	use(t, e, config1)
	return e
}

func use(t testing.TB, e *Engine, text string) {
	t.Helper()
	set, err := rules.Compile([]rules.File{{Name: "test.yaml", Data: []byte(text)}}, rules.Options{})
	if err == nil {
		err = e.Use(set)
	}
	must.OK(t, err)
}

// descriptors makes those of "key=value key=value, key=value:hits, key=value:-hits".
func descriptors(text string) (all []Descriptor) {
	for one := range strings.SplitSeq(text, ",") {
		var d Descriptor
		for _, field := range strings.Fields(one) {
			field, hits, has := strings.Cut(field, ":")
			if hits, d.GivesBack = strings.CutPrefix(hits, "-"); has {
				_, err := fmt.Sscan(hits, &d.Hits)
				d.HasHits = err == nil
			}
			key, value, _ := strings.Cut(field, "=")
			d.Entries = append(d.Entries, rules.Entry{Key: key, Value: value})
		}
		all = append(all, d)
	}
	return all
}

// decide returns what becomes of a request as "over: ok 3, over 0, none".
func decide(t testing.TB, e *Engine, text string, hits uint32) string {
	t.Helper()
	var a Answer
	if err := e.Decide(t.Context(), &Request{Domain: "d", Descriptors: descriptors(text), Hits: hits}, &a); err != nil {
		return "error: " + err.Error()
	}
	return shown(&a)
}

func shown(a *Answer) string {
	var b strings.Builder
	b.WriteString(map[bool]string{true: "over:", false: "ok:"}[a.Over])
	for _, s := range a.Statuses {
		switch {
		case !s.Applies:
			b.WriteString(" none")
		case s.Rule != nil && s.Rule.Unlimited:
			b.WriteString(" unlimited")
		case s.Over:
			fmt.Fprintf(&b, " over %d", s.Remaining)
		default:
			fmt.Fprintf(&b, " ok %d", s.Remaining)
		}
	}
	return b.String()
}

const config1 = `
domain: d
descriptors:
  - {key: ip, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 5}}
  - {key: never, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: tried, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: second, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: named, rate_limit: {unit: minute, requests_per_unit: 1, name: base}}
  - {key: better, rate_limit: {unit: minute, requests_per_unit: 9, name: plus, replaces: [{name: base}, {name: other}]}}
  - {key: tokens, rate_limit: {unit: minute, requests_per_unit: 100}}
  - {key: file, value: "a*", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: each, value: "a*", rate_limit: {unit: minute, requests_per_unit: 1}}
`

// TestRequests: what becomes of requests, one after the other.
func TestRequests(t *testing.T) {
	type step struct {
		request string
		hits    uint32
		want    string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"one limit", []step{
			{
				"ip=a",
				0,
				"ok: ok 2",
			}, {"ip=a", 1, "ok: ok 1"}, {"ip=a", 2, "over: over 1"}, {"ip=a", 1, "ok: ok 0"},
			{"ip=a", 0, "over: over 0"}, {"ip=b", 0, "ok: ok 2"},
		}},
		{"nothing matches", []step{{"other=a", 0, "ok: none"}, {"ip=a extra=b", 0, "ok: none"}}},
		{"all or nothing", []step{
			{"ip=a, user=u", 3, "ok: ok 0, ok 2"},
			{"ip=a, user=u", 1, "over: over 0, ok 2"}, // the user pays nothing
			{"ip=b, user=u", 2, "ok: ok 1, ok 0"},
			{"ip=b, user=u", 1, "over: ok 1, over 0"},
			{"ip=b", 1, "ok: ok 0"},
		}},
		{
			"the same key twice",
			[]step{{"ip=a, ip=a", 1, "ok: ok 1, ok 1"}, {"ip=a, ip=a", 1, "over: over 1, over 1"}},
		},
		{"always over", []step{{"never=a", 1, "over: over 0"}, {"never=a, ip=a", 1, "over: over 0, ok 3"}}},
		{
			"unlimited",
			[]step{{"free=a", 1000, "ok: unlimited"}, {"free=a, never=b", 1, "over: unlimited, over 0"}},
		},
		{"shadow", []step{
			{"tried=a", 1, "ok: ok 0"}, {"tried=a", 1, "ok: ok 0"},
			{"tried=b, ip=a", 1, "ok: ok 0, ok 2"}, {"tried=b, ip=a", 1, "ok: ok 0, ok 1"},
			{"tried=c, never=a", 1, "over: ok 1, over 0"}, // it is not counted in what is refused
			{"tried=c", 1, "ok: ok 0"},
		}},
		{"quota", []step{
			{"quota=a, second=a", 1, "ok: ok 1, ok 0"},
			{"quota=a, second=a", 1, "ok: ok 0, over 0"}, // one has room
			{"quota=a, second=a", 1, "over: over 0, over 0"},
			{"quota=b, ip=a", 1, "ok: ok 1, ok 2"},
			{"quota=b, never=a", 1, "over: ok 1, over 0"}, // one that is no quota is over
		}},
		{"replaces", []step{
			{"named=a", 1, "ok: ok 0"}, {"named=a", 1, "over: over 0"},
			{"named=a, better=a", 1, "ok: none, ok 8"}, {"named=a, better=b", 1, "ok: none, ok 8"},
		}},
		{"hits of descriptors", []step{
			{"ip=a:2, user=u", 0, "ok: ok 1, ok 4"}, {"ip=a:2, user=u:1", 0, "over: over 1, ok 4"},
			{"ip=a:0, user=u", 2, "ok: ok 1, ok 2"}, {"ip=a", 1, "ok: ok 0"},
			{"ip=a:0, user=u", 2, "over: over 0, ok 2"},
		}},
		{"shared by a pattern", []step{
			{"file=a1", 1, "ok: ok 1"}, {"file=a2", 1, "ok: ok 0"}, {"file=a3", 1, "over: over 0"},
			{"each=a1", 1, "ok: ok 0"}, {"each=a2", 1, "ok: ok 0"}, {"each=a1", 1, "over: over 0"},
		}},
		{"a budget", []step{
			{"tokens=a:0", 0, "ok: ok 100"}, {"tokens=a:60", 0, "ok: ok 40"},
			{"tokens=a:0", 0, "ok: ok 40"}, {"tokens=a:60", 0, "over: over 0"}, // it has happened, and counts
			{"tokens=a:0", 0, "over: over 0"},
		}},
		{"what is given back", []step{
			{"user=a:-1", 0, "ok: ok 5"}, // nothing was taken
			{"user=a", 4, "ok: ok 1"}, {"user=a:-2", 0, "ok: ok 3"}, {"user=a", 3, "ok: ok 0"},
			{"user=a:-", 2, "ok: ok 2"}, // the hits are those of the request
			{"user=a:-0", 0, "ok: ok 2"}, {"user=a", 2, "ok: ok 0"}, {"user=a", 1, "over: over 0"},
			{"user=a:-1, ip=a:4", 0, "over: ok 1, over 3"}, // whatever becomes of the others
			{"user=a, user=a:-1", 0, "ok: ok 0, ok 1"},     // after what is taken
			{"user=a:-9223372036854775808", 0, "ok: ok 5"}, {"user=a", 5, "ok: ok 0"}, {"user=a", 1, "over: over 0"},
			{"user=b", 1, "ok: ok 4"}, {"tried=a", 1, "ok: ok 0"}, {"tried=a:-1", 0, "ok: ok 1"},
			{"never=a:-1", 0, "ok: ok 0"}, {"free=a:-1", 0, "ok: unlimited"}, {"other=a:-1", 0, "ok: none"},
			{"file=a1", 2, "ok: ok 0"}, {"file=a2:-1", 0, "ok: ok 1"},
			{"second=a", 1, "ok: ok 0"}, {"second=a, quota=a:-1", 1, "ok: over 0, ok 2"}, // one quota is not over
			{"named=a", 1, "ok: ok 0"}, {"named=a:-1, better=a", 1, "ok: none, ok 8"}, {"named=a", 1, "over: over 0"},
		}},
		{"a budget gets back", []step{
			{"tokens=a:0", 0, "ok: ok 100"}, {"tokens=a:60", 0, "ok: ok 40"}, {"tokens=a:60", 0, "over: over 0"},
			{"tokens=a:-10", 0, "ok: ok 0"}, {"tokens=a:0", 0, "over: over 0"}, // 110 of 100 are used
			{"tokens=a:-11", 0, "ok: ok 1"}, {"tokens=a:0", 0, "ok: ok 1"},
		}},
		{"what is refused takes nothing", []step{
			{"tokens=a", 60, "ok: ok 40"}, {"tokens=a", 60, "over: over 40"}, {"tokens=a", 40, "ok: ok 0"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := start(t, Options{Counts: true})
				for i, s := range tt.steps {
					got := strings.ReplaceAll(decide(t, e, s.request, s.hits), ",", "")
					if want := strings.ReplaceAll(s.want, ",", ""); got != want {
						t.Errorf("step %d, %s: %q, want %q", i+1, s.request, got, want)
					}
				}
			})
		})
	}
}

func TestWrongRequests(t *testing.T) {
	e := start(t, Options{})
	many := strings.TrimSuffix(strings.Repeat("ip=a,", MaxDescriptors+1), ",")
	deep := strings.Repeat("a=b ", rules.MaxDepth+1)
	tests := []struct {
		r    Request
		want string
	}{
		{Request{Descriptors: descriptors("ip=a")}, "rate limit domain must not be empty"},
		{Request{Domain: "d"}, "rate limit descriptor list must not be empty"},
		{Request{Domain: "d", Descriptors: descriptors(many)}, "has 65 descriptors; it must have at most 64"},
		{Request{Domain: "d", Descriptors: descriptors(deep)}, "has 17 entries; it must have at most 16"},
		{
			Request{Domain: "d", Descriptors: []Descriptor{{Limit: &Override{Requests: 1}}}},
			"limit: unit is unknown",
		},
		{
			Request{Domain: "d", Descriptors: []Descriptor{{Limit: &Override{Requests: 1, Unit: 99}}}},
			"limit: unit is Unit(99)",
		},
	}
	for _, tt := range tests {
		var a Answer
		err := e.Decide(t.Context(), &tt.r, &a)
		var wrong *InvalidError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	var a Answer
	if err := New(nil, Options{}).Decide(t.Context(), &Request{Domain: "d"}, &a); !errors.Is(err,
		ErrNotLoaded) {
		t.Errorf("without a configuration: %v", err)
	}
}

// TestOverride: a limit that comes with the request judges it, in a domain that is known.
func TestOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		ask := func(domain string, requests uint32, unit rules.Unit) string {
			d := descriptors("ip=a")
			d[0].Limit = &Override{requests, unit}
			var a Answer
			must.OK(t, e.Decide(t.Context(), &Request{Domain: domain, Descriptors: d}, &a))
			return shown(&a)
		}
		for i, want := range []string{"ok: ok 1", "ok: ok 0", "over: over 0"} {
			if got := ask("d", 2, rules.Hour); got != want {
				t.Errorf("call %d: %q, want %q", i+1, got, want)
			}
		}
		if got, want := ask("d", 4, rules.Hour), "ok: ok 1"; got != want {
			t.Errorf("a higher limit: %q, want %q", got, want)
		}
		if got, want := ask("d", 0, rules.Hour), "over: over 0"; got != want {
			t.Errorf("a limit of 0: %q, want %q", got, want)
		}
		if got, want := ask("unknown", 0, rules.Hour), "ok: none"; got != want {
			t.Errorf("another domain: %q, want %q", got, want)
		}
	})
}

// TestReset: what is over has room after Reset and not before; what is not is all free after it.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		ask := func(text string) *Status {
			var a Answer
			must.OK(t, e.Decide(t.Context(), &Request{Domain: "d", Descriptors: descriptors(text)}, &a))
			return &a.Statuses[0]
		}
		ask("ip=a:2")
		time.Sleep(20 * time.Second)
		if got := ask("ip=a:1"); got.Reset != time.Minute {
			t.Errorf("all is free %v after an admission, want 1m", got.Reset)
		}
		over := ask("ip=a:2")
		if !over.Over || over.Reset < 40*time.Second || over.Reset > 41*time.Second {
			t.Fatalf("%+v, want over for 40 s, and at most a bucket", over)
		}
		time.Sleep(over.Reset - 1)
		if s := ask("ip=a:2"); !s.Over || s.Reset != 1 {
			t.Errorf("1 ns before Reset: %+v", s)
		}
		time.Sleep(time.Nanosecond)
		if s := ask("ip=a:2"); s.Over {
			t.Errorf("at Reset: %+v", s)
		}
		if s := ask("never=a"); s.Reset != NoReset {
			t.Errorf("a limit of 0 has a Reset of %v", s.Reset)
		}
	})
}

func TestServerInShadowMode(t *testing.T) {
	e := start(t, Options{Shadow: true})
	var a Answer
	err := e.Decide(t.Context(), &Request{Domain: "d", Descriptors: descriptors("never=a")}, &a)
	if err != nil || a.Over || !a.Shadowed || !a.Statuses[0].Over {
		t.Errorf("%+v, %v; want an answer that is not over, with a status that is", a, err)
	}
}

// TestKeysAreDistinct: no two lists of entries share a counter.
func TestKeysAreDistinct(t *testing.T) {
	lists := [][]rules.Entry{
		{
			{Key: "a", Value: "b"},
			{Key: "c", Value: "d"},
		}, {{Key: "a", Value: "b|c=d"}}, {{Key: "a", Value: `b\|c=d`}},
		{
			{Key: "a=b", Value: ""},
		}, {{Key: "a", Value: "=b"}}, {{Key: "a", Value: "b"}}, {{Key: "a", Value: "*=b"}},
		{
			{Key: `a\`, Value: "b"},
		}, {{Key: "a", Value: `\b`}}, {{Key: "", Value: ""}}, {{Key: "", Value: ""}, {Key: "", Value: ""}},
	}
	seen := make(map[string]int)
	for _, domain := range []string{"d", "d|a=b", `d\`} {
		for i, l := range lists {
			var a Answer
			key := a.key(domain, l)
			if other, ok := seen[key]; ok {
				t.Errorf("%v and list %d have the key %q", l, other, key)
			}
			seen[key] = i
		}
	}
	a := Answer{match: rules.Match{IsShared: true}}
	a.match.Shared[0] = "b"
	if key := a.key("d", []rules.Entry{{Key: "a", Value: "x"}}); seen[key] != 0 {
		t.Errorf("the key of a shared pattern is that of a value: %q", key)
	}
}

// TestReload: usage goes on, new limits judge it, and what is wrong changes nothing.
func TestReload(t *testing.T) {
	e := start(t, Options{})
	decide(t, e, "ip=a", 2)
	use(t, e, strings.Replace(config1, "requests_per_unit: 3", "requests_per_unit: 4", 1))
	if got, want := decide(t, e, "ip=a", 1), "ok: ok 1"; got != want {
		t.Errorf("after a reload: %q, want %q", got, want)
	}
	use(t, e, "policies: [{name: p, limits: [{rate: 2/m}]}]")
	if got := decide(t, e, "ip=a", 1); got != "ok: none" {
		t.Errorf("without the domain: %q", got)
	}
	for i, want := range []bool{true, true, false} {
		d, err := e.Allow(t.Context(), &Target{Policy: "p", Key: "k"}, 0)
		if err != nil || d.Allowed != want {
			t.Errorf("policy, call %d: %v, %v", i+1, d, err)
		}
	}
	use(t, e, config1)
	if _, err := e.Allow(t.Context(), &Target{Policy: "p", Key: "k"}, 0); !errors.Is(err, ErrUnknownPolicy) {
		t.Errorf("a policy that has gone: %v", err)
	}
}

// TestReloadUnderLoad: while the configuration changes, no request is lost, and none passes above the limit.
func TestReloadUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		var admitted, failed atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				var a Answer
				for range 500 {
					r := Request{Domain: "d", Descriptors: descriptors("tokens=a, user=u:0")}
					if err := e.Decide(context.Background(), &r, &a); err != nil {
						failed.Add(1)
					} else if !a.Over {
						admitted.Add(1)
					}
				}
			})
		}
		for range 50 {
			use(t, e, config1)
		}
		group.Wait()
		if failed.Load() > 0 || admitted.Load() > 100 || admitted.Load() < 90 {
			t.Errorf("%d admitted of 100, %d failed", admitted.Load(), failed.Load())
		}
	})
}

func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		target := &Target{Limit: Limit{3, time.Minute}, Key: "k"}
		d, err := e.Allow(t.Context(), target, 2)
		if err != nil || !d.Allowed || d.Remaining != 1 {
			t.Fatalf("%+v, %v", d, err)
		}
		if d, err := e.Peek(t.Context(), target, 2); err != nil || d.Allowed || d.RetryAfter != time.Minute {
			t.Errorf("Peek: %+v, %v", d, err)
		}
		if used, limits, err := e.Usage(t.Context(), target); err != nil || used[0].Total != 2 ||
			limits[0] != target.Limit {
			t.Errorf("Usage: %v, %v, %v", used, limits, err)
		}
		if reset, err := e.ResetAfter(t.Context(), target); err != nil || reset != time.Minute {
			t.Errorf("ResetAfter: %v, %v", reset, err)
		}
		must.Report(t, e.Delete(t.Context(), target))
		if d, err := e.Allow(t.Context(), target, 3); err != nil || !d.Allowed {
			t.Errorf("after Delete: %+v, %v", d, err)
		}
		if d, err := e.Allow(t.Context(), &Target{Limit: Limit{0, time.Minute}, Key: "k"}, 1); err != nil ||
			d.Allowed ||
			d.RetryAfter != trypema.Never {
			t.Errorf("limit 0: %+v, %v", d, err)
		}
		wrong := []struct {
			t    Target
			cost uint64
			want string
		}{
			{Target{Limit: Limit{3, time.Minute}}, 1, "key is empty"},
			{
				Target{Limit: Limit{3, time.Minute}, Key: strings.Repeat("k", MaxKeyLen+1)},
				1,
				"key has 4097 bytes",
			},
			{Target{Limit: Limit{3, time.Minute}, Key: "k"}, 0, "cost is 0"},
			{Target{Limit: Limit{3, 0}, Key: "k"}, 1, "window is 0s; it must be from 1ms"},
			{Target{Limit: Limit{1 << 60, time.Minute}, Key: "k"}, 1, "limit is 1152921504606846976"},
			{Target{Policy: "none", Key: "k"}, 1, "unknown policy"},
		}
		for _, tt := range wrong {
			if _, err := e.Allow(t.Context(), &tt.t, tt.cost); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		}
	})
}

func TestReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		target := &Target{Limit: Limit{10, time.Hour}, Key: "k"}
		name, d, err := e.Reserve(t.Context(), target, 8, time.Minute)
		if err != nil || !d.Allowed || name == "" {
			t.Fatalf("%q, %+v, %v", name, d, err)
		}
		if name, d, err := e.Reserve(t.Context(), target, 8, 0); err != nil || d.Allowed || name != "" {
			t.Errorf("a second one: %q, %+v, %v", name, d, err)
		}
		must.Report(t, e.Commit(t.Context(), name, 3))
		if err := e.Commit(t.Context(), name, 3); !errors.Is(err, ErrUnknownReservation) {
			t.Errorf("a second Commit: %v", err)
		}
		name, _, _ = e.Reserve(t.Context(), target, 7, time.Minute)
		if name == "" {
			t.Fatal("what was given back has no room")
		}
		time.Sleep(2 * time.Minute)
		if err := e.Commit(t.Context(), name, 7); !errors.Is(err, ErrUnknownReservation) {
			t.Errorf("Commit after the expiry: %v", err)
		}
		if used, _, _ := e.Usage(t.Context(), target); used[0].Total != 3 {
			t.Errorf("%d are used, want the 3 that were committed", used[0].Total)
		}
		for _, expiry := range []time.Duration{-1, 1, MaxExpiry + 1} {
			if _, _, err := e.Reserve(t.Context(), target, 1, expiry); err == nil ||
				!strings.Contains(err.Error(), "expiry is") {
				t.Errorf("expiry %v: %v", expiry, err)
			}
		}
	})
}

func TestScaled(t *testing.T) {
	tests := []struct {
		capacity, count uint64
		period          time.Duration
		want            Limit
	}{
		{1, 1, 2 * time.Second, Limit{1, 2 * time.Second}},
		{16, 30, time.Minute, Limit{16, 32 * time.Second}},
		{5, 1, time.Second, Limit{5, 5 * time.Second}},
		{1, 3, time.Second, Limit{1, 333333334}},
		{1, 10_000, time.Second, Limit{10, time.Millisecond}},
		{1, 1_000_000_000, time.Second, Limit{1_000_000, time.Millisecond}},
	}
	for _, tt := range tests {
		if got, err := Scaled(tt.capacity, tt.count, tt.period); err != nil || got != tt.want {
			t.Errorf("%d at %d per %v: %v, %v, want %v", tt.capacity, tt.count, tt.period, got, err, tt.want)
		}
	}
	for _, wrong := range [][2]uint64{{1 << 63, 1}, {1, 0}, {0, 1}, {1 << 40, 1}} {
		if got, err := Scaled(wrong[0], wrong[1], time.Hour); err == nil {
			t.Errorf("%v is %v", wrong, got)
		}
	}
}

// TestLimitsAreBounded: requests that bring along ever new limits are refused at some point, until others
// have not been used for so long that they count nothing.
func TestLimitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, Options{})
		ask := func(capacity int) error {
			_, err := e.Allow(t.Context(), &Target{Limit: Limit{uint64(capacity), time.Minute}, Key: "k"}, 1)
			return err
		}
		for i := range MaxLimits {
			must.OK(t, ask(i))
		}
		if err := ask(MaxLimits); !errors.Is(err, ErrTooManyLimits) {
			t.Fatalf("limit %d: %v", MaxLimits+1, err)
		}
		if err := ask(7); err != nil {
			t.Errorf("one that is in use: %v", err)
		}
		time.Sleep(3 * time.Minute)
		if err := ask(MaxLimits); err != nil {
			t.Errorf("when the others count nothing: %v", err)
		}
	})
}

// TestHits: hits are counted as the Envoy rate limit service counts them.
func TestHits(t *testing.T) {
	e := start(t, Options{Counts: true})
	for range 12 {
		decide(t, e, "tokens=a", 10)
	}
	decide(t, e, "tried=a", 1)
	decide(t, e, "tried=a", 1)
	decide(t, e, "free=a", 3)
	decide(t, e, "tokens=a:-7", 1)
	got := make(map[string]Hits)
	for name, h := range e.Hits {
		got[name] = h
	}
	want := map[string]Hits{
		"d.tokens": {Total: 120, Over: 20, Near: 20, Within: 100, Returned: 7},
		"d.tried":  {Total: 2, Over: 1, Near: 1, Within: 1, Shadow: 1},
		"d.free":   {Total: 3, Within: 3},
	}
	for name, h := range want {
		if got[name] != h {
			t.Errorf("%s: %+v, want %+v", name, got[name], h)
		}
	}
}

// failing is a provider whose failure policy decides each call.
type failing struct {
	trypema.Keeper
}

func (failing) AllowN(context.Context, string, uint64) (trypema.Decision, error) {
	return trypema.Decision{Fallback: true}, nil
}

func (f failing) Bind(s trypema.Strategy, limits ...trypema.Limit) (*trypema.Bound, error) {
	return trypema.NewBound(s, limits, func([]trypema.Limit) (trypema.Keeper, error) { return f, nil })
}

// TestRefuseFallback: a decision by the failure policy is an error where that is wanted, so that the caller's
// own failure mode decides.
func TestRefuseFallback(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		e := New(failing{}, Options{RefuseFallback: refuse})
		use(t, e, config1)
		var a Answer
		err := e.Decide(t.Context(), &Request{Domain: "d", Descriptors: descriptors("ip=a")}, &a)
		if errors.Is(err, ErrUnavailable) != refuse || !refuse && (err != nil || !a.Over) {
			t.Errorf("refuse %v: %v, %v", refuse, a.Over, err)
		}
	}
}

// TestGiveBackIsRefused: a store that cannot give back is told so, and nothing is counted.
func TestGiveBackIsRefused(t *testing.T) {
	e := New(failing{}, Options{})
	use(t, e, config1)
	var a Answer
	var wrong *InvalidError
	err := e.Decide(t.Context(), &Request{Domain: "d", Descriptors: descriptors("ip=a, user=a:-1")}, &a)
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "descriptor 2 has is_negative_hits") {
		t.Errorf("%v", err)
	}
}

// TestGiveBackAtOnce: whatever many callers take and give back at the same time, no more is out than the
// limit.
func TestGiveBackAtOnce(t *testing.T) {
	const capacity, callers, rounds = 5, 8, 200
	e := start(t, Options{})
	var out, admitted atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			take, give := Request{Domain: "d", Descriptors: descriptors("user=a")}, Request{Domain: "d", Descriptors: descriptors("user=a:-1")}
			for range rounds {
				var a Answer
				must.Report(t, e.Decide(t.Context(), &take, &a))
				if a.Over {
					continue
				}
				admitted.Add(1)
				if n := out.Add(1); n > capacity {
					t.Errorf("%d are out, of %d", n, capacity)
				}
				out.Add(-1)
				if err := e.Decide(t.Context(), &give, &a); err != nil || a.Over {
					t.Error(err, a.Over)
				}
			}
		})
	}
	group.Wait()
	if got := decide(t, e, "user=a:-0", 0); got != "ok: ok 5" || admitted.Load() < rounds {
		t.Errorf("%s after %d were admitted and given back", got, admitted.Load())
	}
}

// BenchmarkDecide: one descriptor on Local is at most 1 µs and one allocation.
func BenchmarkDecide(b *testing.B) {
	e := start(b, Options{})
	r := Request{Domain: "d", Descriptors: descriptors("ip=10.0.0.1")}
	var a Answer
	b.ReportAllocs()
	for b.Loop() {
		must.OK(b, e.Decide(context.Background(), &r, &a))
	}
	if !a.Over {
		b.Fatal("the limit is not reached")
	}
}
