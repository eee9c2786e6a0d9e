package otellimit_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/otellimit"
	"github.com/trypema/trypema/redislimit"
)

// read returns what OpenTelemetry exports, by instrument and the values of its attributes, in the order of
// their names.
func read(t testing.TB, reader sdk.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	must.OK(t, reader.Collect(t.Context(), &all))
	values := make(map[string]float64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[float64]
			switch data := m.Data.(type) {
			case metricdata.Sum[float64]:
				if points = data.DataPoints; !data.IsMonotonic {
					t.Errorf("%s is not a counter", m.Name)
				}
			case metricdata.Gauge[float64]:
				points = data.DataPoints
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
			for _, p := range points {
				name := m.Name
				for _, a := range p.Attributes.ToSlice() {
					if !slices.Contains([]attribute.Key{"policy", "provider", "strategy", "outcome", "le"}, a.Key) {
						t.Errorf("%s has an attribute %s", m.Name, a.Key)
					}
					name += " " + a.Value.AsString()
				}
				values[name] = p.Value
			}
		}
	}
	return values
}

func TestObserver(t *testing.T) {
	reader := sdk.NewManualReader()
	o, err := otellimit.New(sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"))
	must.OK(t, err)
	base := trypema.Options{Observer: o, Name: "api"}
	local := fixture.Local(t, base)
	redis := fixture.Redis(t, fakeredis.New(), redislimit.Options{Options: base, Timeout: time.Minute})
	gone := fakeredis.New()
	gone.Fault = func(string) ([]any, error) { return nil, errors.New("gone") }
	hybrid := fixture.Hybrid(t, gone, hybridlimit.Options{Options: redislimit.Options{Options: base}})
	for range 25 {
		for _, l := range []trypema.Limiter{local.Absolute(), redis.Absolute(), hybrid.Absolute()} {
			if _, err := l.Allow(t.Context(), "secret", 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	local.Suppressed().Allow(t.Context(), "secret", -1)
	plans := fixture.Policies(t, redis,
		trypema.Policy{Name: "free", Limits: []trypema.Limit{trypema.AtMost(2, time.Hour)}})
	plans.Observe(o)
	for range 3 {
		if _, err := plans.Allow(t.Context(), "free", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	values := read(t, reader)
	for name, want := range map[string]float64{
		"trypema.decisions allowed api local absolute":                20,
		"trypema.decisions rejected api local absolute":               5,
		"trypema.decisions suppressed api local suppressed":           0,
		"trypema.decisions rejected api redis absolute":               6, // one of them by a policy
		"trypema.policy.decisions allowed free policies absolute":     2,
		"trypema.policy.decisions rejected free policies absolute":    1,
		"trypema.policy.errors free policies absolute":                0,
		"trypema.policy.fallback_decisions free policies absolute":    0,
		"trypema.decisions allowed api hybrid absolute":               20,
		"trypema.errors api local suppressed":                         1,
		"trypema.fallback_decisions api hybrid absolute":              25,
		"trypema.waited_calls api hybrid absolute":                    1,
		"trypema.redis.outages api hybrid absolute":                   1,
		"trypema.redis.up api hybrid absolute":                        0,
		"trypema.redis.up api redis absolute":                         1,
		"trypema.keys api local absolute":                             1,
		"trypema.active_keys api redis absolute":                      0,
		"trypema.leased_budget api hybrid suppressed":                 0,
		"trypema.settling_lag api hybrid suppressed":                  0,
		"trypema.decision.duration.bucket +Inf api redis absolute":    28,
		"trypema.decision.duration.bucket 3.2e-08 api redis absolute": 0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	for name := range values {
		if strings.HasPrefix(name, "trypema.decision") && strings.Contains(name, " policies ") ||
			strings.HasPrefix(name, "trypema.decision.duration") && strings.HasSuffix(name, " api hybrid suppressed") {
			t.Errorf("%s counts twice, or is empty", name)
		}
	}
	if values["trypema.decision.duration.sum api redis absolute"] <= 0 {
		t.Error("calls took no time")
	}
	for name := range values {
		if strings.Contains(name, "secret") {
			t.Errorf("a key in an attribute: %s", name)
		}
	}
	top := ""
	for _, m := range o.Meters() {
		for key, denied := range m.TopLimited(1) {
			top += fmt.Sprintf("%s %s %d, ", m.Provider, key, denied)
		}
	}
	if want := "hybrid secret 5, local secret 5, redis secret 5, policies secret 1, "; top != want {
		t.Errorf("%q, want %q", top, want)
	}
	if err := o.Close(); err != nil || len(read(t, reader)) > 0 {
		t.Errorf("read after Close, %v", err)
	}
}

// refusing is a Meter that makes no gauge.
type refusing struct{ noop.Meter }

var errRefused = errors.New("refused")

func (refusing) Float64ObservableGauge(
	string, ...metric.Float64ObservableGaugeOption,
) (metric.Float64ObservableGauge, error) {
	return nil, errRefused
}

func TestNewReportsWhatIsWrong(t *testing.T) {
	if _, err := otellimit.New(refusing{}); !errors.Is(err, errRefused) {
		t.Error(err)
	}
}

// No meter is an error, a nil pointer included.
func TestNoMeter(t *testing.T) {
	for _, m := range []metric.Meter{nil, (*nothing)(nil)} {
		if o, err := otellimit.New(m); !errors.Is(err, trypema.ErrInvalidOptions) || o != nil {
			t.Errorf("%T: %v, %v", m, o, err)
		}
	}
}

type nothing struct{ metric.Meter }

// Names that are not UTF-8, which no exporter could send, are made legible; a Meter that panics is no end of
// the reading.
func TestNames(t *testing.T) {
	reader := sdk.NewManualReader()
	o, err := otellimit.New(sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"))
	must.OK(t, err)
	defer o.Close()
	for _, name := range []string{"caf\xe9", "caf\xea"} {
		o.Observe(trypema.Meter{Policy: name, Provider: "other", Strategy: "absolute", Read: func() trypema.Stats {
			return trypema.Stats{Counters: trypema.Counters{Allowed: 1}}
		}})
	}
	o.Observe(trypema.Meter{Policy: "broken", Read: func() trypema.Stats { panic("broken") }})
	if n := read(t, reader)["trypema.decisions allowed caf\ufffd other absolute"]; n != 2 {
		t.Errorf("%v decisions under the two names, want 2", n)
	}
}
