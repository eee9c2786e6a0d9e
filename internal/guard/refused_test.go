package guard_test

import (
	"errors"
	"iter"
	"maps"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// wrongNames are names that break metrics or statuses, or that people cannot tell from another.
var wrongNames = []any{
	"caf\xe9", "a\nb", "free ", " free", "free\u200b", "free\u00a0plan", "free\u2028", "\ufffd", "a\x00",
	"a\x7f", "a\tb",
	"\u202eeerf",
}

// inf is a float that no option can be, and unobserved options whose Observer is a nil pointer.
var (
	inf        = math.Inf(1)
	unobserved = trypema.Options{Observer: (*trypema.Meters)(nil)}
)

// wrongValues are, for each field of options, values that must be refused when they are given, because they
// would otherwise fail later, on another goroutine or at each call. A field without any takes all that its
// type has.
var wrongValues = []struct {
	of     any // a struct with options
	build  func(o any) error
	fields map[string][]any
}{
	{
		trypema.Options{}, func(o any) error {
			_, err := trypema.NewLocal(o.(trypema.Options))
			return err
		},
		map[string][]any{
			"Window":          {-time.Second, time.Duration(1), 101 * 365 * 24 * time.Hour},
			"Bucket":          {-time.Second, time.Duration(1), time.Hour},
			"HardLimitFactor": {.5, -1., inf, -inf, math.NaN()},
			"MaxKeys":         {-1},
			"Observer":        {(*trypema.Meters)(nil)},
			"Name":            wrongNames,
		},
	},
	{
		redislimit.Options{}, func(o any) error {
			_, err := redislimit.New(fakeredis.New(), o.(redislimit.Options))
			return err
		},
		map[string][]any{
			"Options":       {unobserved, trypema.Options{Name: "caf\xe9"}},
			"Prefix":        {"a{b", "a}b"},
			"Timeout":       {-time.Second, time.Duration(1)},
			"OnFailure":     {redislimit.FailurePolicy(3)},
			"Instances":     {-1},
			"RetryInterval": {-time.Second, time.Duration(1)},
			"OnChange":      nil,
		},
	},
	{
		hybridlimit.Options{}, func(o any) error {
			_, err := hybridlimit.New(fakeredis.New(), o.(hybridlimit.Options))
			return err
		},
		map[string][]any{
			"Options":      {redislimit.Options{Prefix: "{"}, redislimit.Options{Options: unobserved}},
			"SyncInterval": {-time.Second, time.Duration(1), time.Hour},
			"OnEmpty":      {hybridlimit.EmptyPolicy(2)},
		},
	},
	{
		trypema.Limit{Rate: 10, Window: time.Second}, func(o any) error {
			return trypema.CheckLimits(trypema.StrategyAbsolute, []trypema.Limit{o.(trypema.Limit)})
		},
		map[string][]any{
			"Name":   wrongNames,
			"Rate":   {trypema.Rate(0), trypema.Rate(-1), trypema.Rate(.5), trypema.Rate(inf), trypema.Per(1, 0)},
			"Window": {time.Duration(0), -time.Second, time.Duration(1), 101 * 365 * 24 * time.Hour},
		},
	},
	{
		trypema.Policy{Name: "free", Limits: limits}, func(o any) error {
			l, err := trypema.NewLocal(trypema.Options{})
			if err != nil {
				return nil
			}
			defer l.Close()
			_, err = trypema.NewPolicies(l, o.(trypema.Policy))
			return err
		},
		map[string][]any{
			"Name":     append([]any{"", "a:b", strings.Repeat("n", 65)}, wrongNames...),
			"Group":    append([]any{"a:b", strings.Repeat("n", 65)}, wrongNames...),
			"Strategy": {trypema.Strategy(2)},
			"Limits":   {limits[:0], make([]trypema.Limit, 1), make([]trypema.Limit, trypema.MaxLimits+1)},
			"Cost":     {uint64(11)},
			"Shadow":   nil,
		},
	},
}

// rule is how an error says the rule.
var rule = regexp.MustCompile("must|longer than|raise the rate")

var limits = []trypema.Limit{{Rate: 10, Window: time.Second}}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, of := range wrongValues {
		kind := reflect.TypeOf(of.of)
		if err := of.build(of.of); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
		for i := range kind.NumField() {
			name := kind.Field(i).Name
			if !kind.Field(i).IsExported() {
				continue
			}
			values, ok := of.fields[name]
			if !ok {
				t.Errorf("%v.%s is not in the table: which values of it are wrong?", kind, name)
			}
			for _, value := range values {
				o := reflect.New(kind).Elem()
				o.Set(reflect.ValueOf(of.of))
				o.Field(i).Set(reflect.ValueOf(value))
				err := of.build(o.Interface())
				named := errors.Is(err, trypema.ErrInvalidOptions) || errors.Is(err, trypema.ErrInvalidRate)
				if !named || !rule.MatchString(err.Error()) {
					t.Errorf("%v with %s %#v: %v", kind, name, value, err)
				}
			}
		}
	}
}

// What is passed to a constructor by itself.
func TestWrongArgumentsAreRefused(t *testing.T) {
	redis := func(c redislimit.Conn) error {
		_, err := redislimit.New(c, redislimit.Options{})
		return err
	}
	hybrid := func(c redislimit.Conn) error {
		_, err := hybridlimit.New(c, hybridlimit.Options{})
		return err
	}
	policies := func(p trypema.Binder) error {
		_, err := trypema.NewPolicies(p, trypema.Policy{Name: "a", Limits: limits})
		return err
	}
	for name, err := range map[string]error{
		"redislimit.New, no Conn":                      redis(nil),
		"redislimit.New, a nil pointer":                redis((*fakeredis.Server)(nil)),
		"redislimit.New, a Conn that cannot work":      redis(uselessConn{fakeredis.New()}),
		"hybridlimit.New, no Conn":                     hybrid(nil),
		"hybridlimit.New, a nil pointer":               hybrid((*fakeredis.Server)(nil)),
		"hybridlimit.New, a Conn that cannot work":     hybrid(uselessConn{fakeredis.New()}),
		"NewPolicies, no provider":                     policies(nil),
		"NewPolicies, a nil pointer":                   policies((*trypema.Local)(nil)),
		"NewPolicies, a provider that returns nothing": policies(uselessProvider{}),
	} {
		if !errors.Is(err, trypema.ErrInvalidOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type uselessConn struct{ *fakeredis.Server }

func (uselessConn) Check() error { return errors.New("it has no server") }

type uselessProvider struct{}

func (uselessProvider) Bind(trypema.Strategy, ...trypema.Limit) (*trypema.Bound, error) {
	return nil, nil
}

// Names that are fine.
func TestRightNames(t *testing.T) {
	for _, name := range []string{
		"", "login", "café", "cafe\u0301", "Straße 7", "プラン", "a-b_c.d/e", `a"b\c`, "👍", "❤️", "مجاني",
	} {
		l, err := trypema.NewLocal(trypema.Options{Name: name})
		if err != nil {
			t.Error(err)
			continue
		}
		_ = l.Close()
	}
}

// What is observed is legible, and there, whoever is observed.
func TestMetersOfOthers(t *testing.T) {
	said := logged(t)
	reads := 0
	top := func(int) iter.Seq2[string, uint64] { return maps.All(map[string]uint64(nil)) }
	right := func() trypema.Stats { reads++; return trypema.Stats{Counters: trypema.Counters{Allowed: 1}} }
	var all trypema.Meters
	o := trypema.Observers(nil, (*trypema.Meters)(nil), &all)
	for _, m := range []trypema.Meter{
		{Policy: "caf\xe9", Read: right, TopLimited: top},
		{Policy: "caf\xea", Read: right, TopLimited: top},
		{Policy: "broken", Read: func() trypema.Stats { panic("broken") }, TopLimited: top},
		{Policy: "broken top", Read: right, TopLimited: func(int) iter.Seq2[string, uint64] { panic("broken") }},
		{Policy: "no Read", TopLimited: top},
		{Policy: "no TopLimited", Read: right},
	} {
		o.Observe(m)
	}
	want := map[string]uint64{"caf\ufffd": 2, "broken": 0, "broken top": 1, "no Read": 0, "no TopLimited": 1}
	for range 2 {
		got := make(map[string]uint64)
		for _, m := range all.All() {
			got[m.Policy] = m.Read().Allowed
			for range m.TopLimited(10) {
				t.Errorf("%q has a key", m.Policy)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if n := strings.Count(said.String(), "Read of a Meter panicked"); n != 1 {
		t.Errorf("the log has a broken Meter %d times, want 1\n%s", n, said)
	}
}
