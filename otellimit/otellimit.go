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
// OpenTelemetry has no histogram that is read. So latency is told by counters:
// trypema.decision.duration.bucket counts the measured calls that took less than its attribute le, in
// seconds, as Prometheus does; trypema.decision.duration.sum how long they took together.
func New(meter metric.Meter) (*Observer, error) {
	if invalid.Nil(meter) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"otellimit.New got no meter; it must be a metric.Meter")
	}
	o := new(Observer)
	var wrong []error
	var all []metric.Observable
	counter := func(name, unit, help string) metric.Float64Observable {
		c, err := meter.Float64ObservableCounter("trypema."+name, metric.WithUnit(unit),
			metric.WithDescription(help))
		wrong, all = append(wrong, err), append(all, c)
		return c
	}
	of := make([]metric.Float64Observable, len(metrics.All))
	for i := range metrics.All {
		switch m := &metrics.All[i]; {
		case i > 0 && m.Name == metrics.All[i-1].Name: // with another outcome
			of[i] = of[i-1]
		case m.Counter:
			of[i] = counter(m.Name, m.Unit, m.Help)
		default:
			g, err := meter.Float64ObservableGauge("trypema."+m.Name, metric.WithUnit(m.Unit),
				metric.WithDescription(m.Help))
			wrong, all, of[i] = append(wrong, err), append(all, g), g
		}
	}
	duration := metrics.Duration.Name
	buckets := counter(duration+".bucket", "{call}",
		metrics.Duration.Help+" Calls that took less than le seconds.")
	sum := counter(duration+".sum", metrics.Duration.Unit, "Duration of the calls in the buckets together.")
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	observe := func(to metric.Observer, m *trypema.Meter) {
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
				tell(of[i], value, attribute.String("outcome", outcome))
			} else {
				tell(of[i], value)
			}
		}
		measured := tally.Measured(&s.Latency)
		if measured == 0 {
			return
		}
		for bound, n := range tally.Below(&s.Latency) {
			tell(buckets, float64(n), attribute.String("le", strconv.FormatFloat(bound, 'g', -1, 64)))
		}
		tell(buckets, float64(measured), attribute.String("le", "+Inf"))
		tell(sum, s.LatencySum.Seconds())
	}
	var err error
	o.registration, err = meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, m := range o.meters.All() {
			observe(to, &m)
		}
		return nil
	}, all...)
	if err != nil {
		return nil, err
	}
	return o, nil
}

// Observe implements trypema.Observer.
func (o *Observer) Observe(m trypema.Meter) { o.meters.Observe(m) }

// Close ends the reading, and returns an error of OpenTelemetry, if there is one.
func (o *Observer) Close() error { return o.registration.Unregister() }

// Meters returns the meters of all policies, providers and strategies: their TopLimited tells which keys were
// denied most.
func (o *Observer) Meters() []trypema.Meter { return o.meters.All() }
