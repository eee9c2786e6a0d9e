// Package otellimit shows OpenTelemetry what the limiters of a program do.
//
// An [Observer] reads the counters when metrics are exported; calls do not know of it. Attributes are policy (Options.Name),
// provider, strategy and outcome, never a key: which keys are limited most, the TopLimited of [Observer.Meters] tells on demand.
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
// OpenTelemetry has no histogram that is read. So latency is told by counters: trypema.decision.duration.bucket counts the measured
// calls that took less than its attribute le, in seconds, as Prometheus does; trypema.decision.duration.sum how long they took
// together.
func New(meter metric.Meter) (*Observer, error) {
	if invalid.Nil(meter) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"otellimit.New got no meter; it must be a metric.Meter")
	}
	o := new(Observer)
	var wrong []error
	var all []metric.Observable
	counter := func(name, unit, description string) metric.Float64ObservableCounter {
		c, err := meter.Float64ObservableCounter("trypema."+name, metric.WithUnit(unit), metric.WithDescription(description))
		wrong, all = append(wrong, err), append(all, c)
		return c
	}
	gauge := func(name, unit, description string) metric.Float64ObservableGauge {
		g, err := meter.Float64ObservableGauge("trypema."+name, metric.WithUnit(unit), metric.WithDescription(description))
		wrong, all = append(wrong, err), append(all, g)
		return g
	}
	var (
		decisions = counter("decisions", "{call}", "Calls that were decided, by outcome.")
		failed    = counter("errors", "{call}", "Calls that got an error and no decision.")
		fallbacks = counter("fallback_decisions", "{call}", "Calls that were decided by the failure policy, because Redis was not there.")
		waited    = counter("waited_calls", "{call}", "Calls to Hybrid that waited for Redis, because nothing was on lease.")
		outages   = counter("redis.outages", "{outage}", "Times that Redis was taken for gone.")
		unread    = counter("redis.unreadable_windows", "{window}", "Unreadable windows in Redis that were started again.")
		buckets   = counter("decision.duration.bucket", "{call}", "Calls that took less than le seconds. Redis: all of them; Local and Hybrid: a sample.")
		took      = counter("decision.duration.sum", "s", "How long the calls in the buckets took together.")
		keys      = gauge("keys", "{key}", "Keys that are held in the process.")
		active    = gauge("active_keys", "{key}", "Keys that have something to do with Redis: a call under way or, for Hybrid, settling.")
		leased    = gauge("leased_budget", "1", "What Hybrid has on lease, as each key was left by its last message.")
		lag       = gauge("settling_lag", "s", "How far Hybrid is behind with settling.")
		redisUp   = gauge("redis.up", "1", "Whether Redis is there (1), or taken for gone (0).")
	)
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	observe := func(to metric.Observer, m trypema.Meter) {
		s := m.Read()
		names := []attribute.KeyValue{
			attribute.String("policy", m.Policy), attribute.String("provider", m.Provider), attribute.String("strategy", m.Strategy),
		}
		tell := func(i metric.Float64Observable, value float64, more ...attribute.KeyValue) {
			to.ObserveFloat64(i, value, metric.WithAttributes(append(names, more...)...))
		}
		tell(decisions, float64(s.Allowed), attribute.String("outcome", "allowed"))
		if m.Strategy == "suppressed" {
			tell(decisions, float64(s.Suppressed), attribute.String("outcome", "suppressed"))
		} else {
			tell(decisions, float64(s.Rejected), attribute.String("outcome", "rejected"))
		}
		tell(failed, float64(s.Errors))
		for bound, n := range tally.Below(&s.Latency) {
			tell(buckets, float64(n), attribute.String("le", strconv.FormatFloat(bound, 'g', -1, 64)))
		}
		tell(buckets, float64(tally.Measured(&s.Latency)), attribute.String("le", "+Inf"))
		tell(took, s.LatencySum.Seconds())
		tell(keys, float64(s.Keys))
		if m.Provider == "local" {
			return
		}
		tell(fallbacks, float64(s.Fallbacks))
		if m.Provider == "policies" { // their provider tells the rest
			return
		}
		up := 1.0
		if s.RedisErr != nil {
			up = 0
		}
		tell(redisUp, up)
		tell(outages, float64(s.Outages))
		tell(unread, float64(s.Unreadable))
		tell(active, float64(s.ActiveKeys))
		if m.Provider == "hybrid" {
			tell(waited, float64(s.Waited))
			tell(leased, float64(s.Leased))
			tell(lag, s.SettlingLag.Seconds())
		}
	}
	var err error
	o.registration, err = meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		for _, m := range o.meters.All() {
			observe(to, m)
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

// Meters returns the meters of all policies, providers and strategies: their TopLimited tells which keys were denied most.
func (o *Observer) Meters() []trypema.Meter { return o.meters.All() }
