package hybridlimit_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/redislimit"
)

// wrongOption is how an error names a field, its value and the rule.
var wrongOption = regexp.MustCompile(`^trypema: (?:redislimit\.|hybridlimit\.)?Options\.(\w+) is (?s:(.*?))(?:; it must |, longer than Options\.Window)`)

// FuzzOptions: of any options a provider is made that works, or an error that names the field, its value and
// the rule.
func FuzzOptions(f *testing.F) {
	f.Add(int64(0), int64(0), 0., int64(0), "", int64(0), uint8(0), int64(0), int64(0), int64(0), uint8(0))
	f.Add(int64(time.Hour), int64(time.Minute), 1., int64(1), "p", int64(time.Second), uint8(1), int64(8),
		int64(time.Second), int64(time.Second), uint8(1))
	f.Add(int64(time.Millisecond), int64(time.Millisecond), math.MaxFloat64, int64(1<<40), "\x00:",
		int64(time.Millisecond), uint8(2), int64(math.MaxInt32), int64(time.Millisecond),
		int64(time.Millisecond), uint8(0))
	f.Add(int64(100*365*24*time.Hour), int64(time.Millisecond), math.Inf(1), int64(-1), "{", int64(-1),
		uint8(3), int64(-1), int64(-1), int64(-1), uint8(2))
	f.Add(int64(1e6+1), int64(1e6+1), 1.5, int64(0), "a}", int64(math.MaxInt64), uint8(0), int64(2),
		int64(math.MaxInt64), int64(1e6), uint8(0))
	f.Fuzz(func(t *testing.T, w, bucket int64, factor float64, keys int64, prefix string, timeout int64, failure uint8, instances, retry, interval int64, empty uint8) {
		o := hybridlimit.Options{
			Options: redislimit.Options{
				Options: trypema.Options{Window: time.Duration(w), Bucket: time.Duration(bucket), HardLimitFactor: factor, MaxKeys: int(keys)},
				Prefix:  prefix, Timeout: time.Duration(timeout), OnFailure: redislimit.FailurePolicy(failure), Instances: int(instances),
				RetryInterval: time.Duration(retry),
			},
			SyncInterval: time.Duration(interval), OnEmpty: hybridlimit.EmptyPolicy(empty),
		}
		synctest.Test(t, func(t *testing.T) {
			local, err := trypema.NewLocal(o.Options.Options)
			if checkOptions(t, o, err) {
				works(t, local)
			}
			redis, err := redislimit.New(fakeredis.New(), o.Options)
			if checkOptions(t, o, err) {
				works(t, redis)
			}
			hybrid, err := hybridlimit.New(fakeredis.New(), o)
			if checkOptions(t, o, err) {
				works(t, hybrid)
				all, err := o.WithDefaults()
				again, err2 := all.WithDefaults()
				if err != nil || err2 != nil || !reflect.DeepEqual(all, again) {
					t.Fatalf("%+v, %v, with defaults again %+v, %v", all, err, again, err2)
				}
			}
		})
	})
}

// checkOptions reports whether options were taken, and judges the error if not.
func checkOptions(t *testing.T, o hybridlimit.Options, err error) bool {
	t.Helper()
	if err == nil {
		return true
	}
	parts := wrongOption.FindStringSubmatch(err.Error())
	if !errors.Is(err, trypema.ErrInvalidOptions) || parts == nil {
		t.Fatalf("%q, of %+v", err, o)
	}
	field := reflect.ValueOf(o).FieldByName(parts[1])
	if !field.IsValid() || fmt.Sprint(field) != parts[2] && fmt.Sprintf("%q", field) != parts[2] {
		t.Fatalf("%q, of %+v", err, o)
	}
	return false
}

// works makes a few calls that must pass.
func works(t *testing.T, p interface {
	trypema.Binder
	Absolute() trypema.Limiter
	Suppressed() trypema.Limiter
	Close() error
}) {
	t.Helper()
	for _, l := range []trypema.Limiter{p.Absolute(), p.Suppressed()} {
		d, err := l.Allow(ctx, "k", trypema.Unlimited)
		if err != nil || d.Limit == 0 || d.RetryAfter < 0 || !d.Allowed && !d.Fallback && d.RetryAfter == 0 {
			t.Fatalf("the first call: %+v, %v", d, err)
		}
		if u, err := l.Usage(ctx, "k", trypema.Unlimited); err != nil || d.Allowed && u.Total != 1 {
			t.Fatalf("after the first call: %+v, %v", u, err)
		}
	}
	m, err := p.Bind(trypema.StrategyAbsolute, trypema.Limit{Rate: trypema.Unlimited, Window: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := m.Allow(ctx, "k"); err != nil || d.Limit == 0 {
		t.Fatalf("the first call: %+v, %v", d, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzReply: whatever a server answers, calls end in time with an error or a decision that makes sense;
// nothing panics, and no more is admitted than was granted.
func FuzzReply(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(model.Noise(seed, 200))
	}
	f.Fuzz(replyRun)
}

func replyRun(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		half := len(data) / 2
		in := model.Tape{Data: data[:half]}
		liar := fakeredis.NewLiar(&model.Tape{Data: data[half:]})
		liar.Delay = time.Millisecond
		p, err := hybridlimit.New(liar, hybridlimit.Options{Options: redislimit.Options{
			OnFailure: redislimit.FailClosed, RetryInterval: time.Millisecond,
		}})
		if err != nil {
			t.Fatal(err)
		}
		admitted := uint64(0)
		for len(in.Data) > 0 {
			admitted += ask(t, &in, p)
			time.Sleep(time.Duration(in.Next()) * 20 * time.Millisecond)
		}
		_ = p.Close() // Redis may not take what there is to settle
		if granted := liar.Granted(); admitted > granted {
			t.Errorf("%d were admitted of %d granted", admitted, granted)
		}
	})
}

// ask makes one call, of any kind, and returns what was admitted.
func ask(t *testing.T, in *model.Tape, p *hybridlimit.Provider) uint64 {
	t.Helper()
	began := time.Now()
	l := strategy(p, in.Next()%2 == 0)
	n, rate := model.Pick(in, uint64(1), 1, 2, 10, 11, math.MaxUint64), model.Pick(in, trypema.Rate(1), 100,
		trypema.Unlimited)
	var d trypema.Decision
	var err error
	peek := false
	switch in.Next() % 12 {
	case 0:
		_, err = l.Set(ctx, "k", model.Pick(in, trypema.Always(), trypema.Less(5)), uint64(in.Next()),
			trypema.KeepNewest)
	case 1:
		var u trypema.Usage
		if u, err = l.Usage(ctx, "k", rate); u.Declined > u.Total || u.Remaining > u.Limit ||
			!(u.SuppressionFactor >= 0 && u.SuppressionFactor <= 1) {
			t.Fatalf("%+v", u)
		}
	case 2:
		err = l.Delete(ctx, "k")
	case 3:
		err = p.Flush(ctx)
	case 4:
		peek = true
		d, err = l.Peek(ctx, "k", rate, n)
	default:
		d, err = l.AllowN(ctx, "k", rate, n)
	}
	if took := time.Since(began); took > time.Second {
		t.Fatalf("it took %v", took)
	}
	if err == nil && !fakeredis.Sane(d) {
		t.Fatalf("%+v", d)
	}
	if err == nil && d.Allowed && !peek {
		return n
	}
	return 0
}
