// Package otellimit shows OpenTelemetry what the limiters of a program do.
//
// An [Observer] reads the counters when metrics are exported; calls do not know of it. Attributes are policy
// (Options.Name), provider, strategy and outcome, never a key: which keys are limited most, the TopLimited of
// [Observer.Meters] tells on demand.
//
//	limited, err := otellimit.New(otel.Meter("example.com/api"))
//	if err != nil { … }
//	limits, err := trypema.NewLocal(trypema.Options{Name: "api", Observer: limited})
package otellimit

import (
	"context"
	"errors"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/metrics"
	"github.com/trypema/trypema/internal/tally"
)

// Observer is a trypema.Observer with instruments of OpenTelemetry.
type Observer struct {
	meters       trypema.Meters
	registration metric.Registration
}

// New returns an Observer whose instruments are made by a meter, or an error: of the meter, or
// trypema.ErrInvalidOptions without one. It can be given to any number of providers.
//
// OpenTelemetry has no asynchronous histogram. So latency is in counters: trypema.decision.duration.bucket
// counts the measured calls that took less than its attribute le, in seconds, as Prometheus does;
// trypema.decision.duration.sum adds up their durations.
func New(meter metric.Meter) (*Observer, error) {
	if invalid.Nil(meter) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"otellimit.New got no meter; it must be a metric.Meter")
	}
	in, err := newInstruments(meter)
	if err != nil {
		return nil, err
	}
	o := new(Observer)
	o.registration, err = meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, m := range o.meters.All() {
			in.observe(to, &m)
		}
		return nil
	}, in.all...)
	if err != nil {
		return nil, err
	}
	return o, nil
}

// instruments are those of an Observer.
type instruments struct {
	all          []metric.Observable
	of           []metric.Float64Observable // metrics.All
	buckets, sum metric.Float64Observable   // metrics.Duration
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	in := &instruments{of: make([]metric.Float64Observable, len(metrics.All))}
	var wrong []error
	counter := func(name, unit, help string) metric.Float64Observable {
		c, err := meter.Float64ObservableCounter("trypema."+name, metric.WithUnit(unit),
			metric.WithDescription(help))
		wrong, in.all = append(wrong, err), append(in.all, c)
		return c
	}
	for i := range metrics.All {
		switch m := &metrics.All[i]; {
		case i > 0 && m.Name == metrics.All[i-1].Name: // with another outcome
			in.of[i] = in.of[i-1]
		case m.Counter:
			in.of[i] = counter(m.Name, m.Unit, m.Help)
		default:
			g, err := meter.Float64ObservableGauge("trypema."+m.Name, metric.WithUnit(m.Unit),
				metric.WithDescription(m.Help))
			wrong, in.all, in.of[i] = append(wrong, err), append(in.all, g), g
		}
	}
	duration := metrics.Duration.Name
	in.buckets = counter(duration+".bucket", "{call}",
		metrics.Duration.Help+" Calls that took less than le seconds.")
	in.sum = counter(duration+".sum", metrics.Duration.Unit, "Duration of the calls in the buckets together.")
	return in, errors.Join(wrong...)
}

// observe reads a meter.
func (in *instruments) observe(to metric.Observer, m *trypema.Meter) {
	s := m.Read()
	names := []attribute.KeyValue{
		attribute.String("policy", m.Policy), attribute.String("provider", m.Provider),
		attribute.String("strategy", m.Strategy),
	}
	tell := func(i metric.Float64Observable, value float64, more ...attribute.KeyValue) {
		to.ObserveFloat64(i, value, metric.WithAttributes(append(names, more...)...))
	}
	for i, value := range metrics.Read(m, &s) {
		if outcome := metrics.All[i].Outcome; outcome != "" {
			tell(in.of[i], value, attribute.String("outcome", outcome))
		} else {
			tell(in.of[i], value)
		}
	}
	measured := tally.Measured(&s.Latency)
	if measured == 0 {
		return
	}
	for bound, n := range tally.Below(&s.Latency) {
		tell(in.buckets, float64(n), attribute.String("le", strconv.FormatFloat(bound, 'g', -1, 64)))
	}
	tell(in.buckets, float64(measured), attribute.String("le", "+Inf"))
	tell(in.sum, s.LatencySum.Seconds())
}

// Observe implements trypema.Observer.
func (o *Observer) Observe(m trypema.Meter) { o.meters.Observe(m) }

// Close ends the reading, and returns an error of OpenTelemetry, if there is one.
func (o *Observer) Close() error { return o.registration.Unregister() }

// Meters returns the meters of all policies, providers and strategies: their TopLimited tells which keys were
// denied most.
func (o *Observer) Meters() []trypema.Meter { return o.meters.All() }
