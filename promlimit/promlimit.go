// Package promlimit shows Prometheus what the limiters of a program do.
//
// A [Collector] is both a trypema.Observer, to be told of the providers, and a prometheus.Collector, to be scraped. It reads the
// counters when it is scraped; calls do not know of it. Labels are the policy (Options.Name), the provider, the strategy and the
// outcome, never a key: which keys are limited most, [Collector.TopLimited] shows on demand.
//
//	limited := promlimit.New()
//	prometheus.MustRegister(limited)
//	limits, err := trypema.NewLocal(trypema.Options{Name: "api", Observer: limited})
package promlimit

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/tally"
)

// Collector is an Observer that Prometheus can scrape.
type Collector struct{ meters trypema.Meters }

// New returns a Collector, to be registered once, and given to any number of providers.
func New() *Collector { return new(Collector) }

// Observe implements trypema.Observer.
func (c *Collector) Observe(m trypema.Meter) { c.meters.Observe(m) }

var (
	decisions = describe("decisions_total", "Calls that were decided, by outcome.", "outcome")
	errors    = describe("errors_total", "Calls that got an error and no decision.")
	fallbacks = describe("fallback_decisions_total", "Calls that were decided by the failure policy, because Redis was not there.")
	waited    = describe("waited_calls_total", "Calls to Hybrid that waited for Redis, because nothing was on lease.")
	outages   = describe("redis_outages_total", "Times that Redis was taken for gone.")
	unread    = describe("redis_unreadable_windows_total", "Unreadable windows in Redis that were started again.")
	duration  = describe("decision_duration_seconds", "How long calls took. Redis: all of them; Local and Hybrid: a sample.")
	keys      = describe("keys", "Keys that are held in the process.")
	active    = describe("active_keys", "Keys that have something to do with Redis: a call under way or, for Hybrid, settling.")
	leased    = describe("leased_budget", "What Hybrid has on lease, as each key was left by its last message.")
	lag       = describe("settling_lag_seconds", "How far Hybrid is behind with settling.")
	redisUp   = describe("redis_up", "Whether Redis is there (1), or taken for gone (0).")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("trypema_"+name, help, append([]string{"policy", "provider", "strategy"}, labels...), nil)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		decisions, errors, fallbacks, waited, outages, unread, duration, keys, active, leased, lag, redisUp,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, m := range c.meters.All() {
		s := m.Read()
		send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, kind, value, append([]string{m.Policy, m.Provider, m.Strategy}, labels...)...)
		}
		send(decisions, prometheus.CounterValue, float64(s.Allowed), "allowed")
		if m.Strategy == "suppressed" {
			send(decisions, prometheus.CounterValue, float64(s.Suppressed), "suppressed")
		} else {
			send(decisions, prometheus.CounterValue, float64(s.Rejected), "rejected")
		}
		send(errors, prometheus.CounterValue, float64(s.Errors))
		to <- prometheus.MustNewConstHistogram(duration, tally.Measured(&s.Latency), s.LatencySum.Seconds(),
			maps.Collect(tally.Below(&s.Latency)), m.Policy, m.Provider, m.Strategy)
		send(keys, prometheus.GaugeValue, float64(s.Keys))
		if m.Provider == "local" {
			continue
		}
		send(fallbacks, prometheus.CounterValue, float64(s.Fallbacks))
		if m.Provider == "policies" { // their provider tells the rest
			continue
		}
		up := 1.0
		if s.RedisErr != nil {
			up = 0
		}
		send(redisUp, prometheus.GaugeValue, up)
		send(outages, prometheus.CounterValue, float64(s.Outages))
		send(unread, prometheus.CounterValue, float64(s.Unreadable))
		send(active, prometheus.GaugeValue, float64(s.ActiveKeys))
		if m.Provider == "hybrid" {
			send(waited, prometheus.CounterValue, float64(s.Waited))
			send(leased, prometheus.GaugeValue, float64(s.Leased))
			send(lag, prometheus.GaugeValue, s.SettlingLag.Seconds())
		}
	}
}

// Limited is a key that is limited.
type Limited struct {
	Policy   string `json:"policy"`
	Provider string `json:"provider"`
	Strategy string `json:"strategy"`
	Key      string `json:"key"`
	Denied   uint64 `json:"denied"` // of late, at least: see trypema.Meter
}

// TopLimited returns, of each policy, provider and strategy, the n keys that were denied most of late.
func (c *Collector) TopLimited(n int) []Limited {
	all := []Limited{}
	for _, m := range c.meters.All() {
		for key, denied := range m.TopLimited(n) {
			all = append(all, Limited{m.Policy, m.Provider, m.Strategy, key, denied})
		}
	}
	return all
}

// ServeHTTP answers with what TopLimited returns, as JSON: 10 keys of each, or as many as the parameter n says. Keys may be
// names of people: it is not for the public.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := 10
	if asked := r.URL.Query().Get("n"); asked != "" {
		var err error
		if n, err = strconv.Atoi(asked); err != nil || n < 0 {
			http.Error(w, "n must be a number, 0 or more", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(c.TopLimited(n)) //nolint:errcheck // the client has left
}
