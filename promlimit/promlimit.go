// Package promlimit shows Prometheus what the limiters of a program do.
//
// A [Collector] is both a trypema.Observer, to be told of the providers, and a prometheus.Collector, to be
// scraped. It reads the counters when it is scraped; calls do not know of it. Labels are the policy
// (Options.Name), the provider, the strategy and the outcome, never a key: which keys are limited most,
// [Collector.TopLimited] shows on demand.
//
//	limited := promlimit.New()
//	prometheus.MustRegister(limited)
//	limits, err := trypema.NewLocal(trypema.Options{Name: "api", Observer: limited})
package promlimit

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/metrics"
	"github.com/trypema/trypema/internal/tally"
)

// Collector is an Observer that Prometheus can scrape.
type Collector struct{ meters trypema.Meters }

// New returns a Collector, to be registered once, and given to any number of providers.
func New() *Collector { return new(Collector) }

// Observe implements trypema.Observer.
func (c *Collector) Observe(m trypema.Meter) { c.meters.Observe(m) }

var (
	duration = describe(&metrics.Duration, "_seconds")
	descs    = func() (all []*prometheus.Desc) { // of metrics.All
		for i := range metrics.All {
			m, suffix := &metrics.All[i], ""
			switch {
			case i > 0 && m.Name == metrics.All[i-1].Name: // with another outcome
				all = append(all, all[i-1])
				continue
			case m.Counter:
				suffix = "_total"
			case m.Unit == "s":
				suffix = "_seconds"
			}
			all = append(all, describe(m, suffix))
		}
		return all
	}()
)

func describe(m *metrics.Metric, suffix string) *prometheus.Desc {
	labels := []string{"policy", "provider", "strategy"}
	if m.Outcome != "" {
		labels = append(labels, "outcome")
	}
	return prometheus.NewDesc("trypema_"+strings.ReplaceAll(m.Name, ".", "_")+suffix, m.Help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	to <- duration
	for _, d := range slices.Compact(slices.Clone(descs)) {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, m := range c.meters.All() {
		s := m.Read()
		if measured := tally.Measured(&s.Latency); measured > 0 {
			to <- prometheus.MustNewConstHistogram(duration, measured, s.LatencySum.Seconds(),
				maps.Collect(tally.Below(&s.Latency)), m.Policy, m.Provider, m.Strategy)
		}
		for i, value := range metrics.Read(&m, &s) {
			kind, labels := prometheus.GaugeValue, []string{m.Policy, m.Provider, m.Strategy}
			if metrics.All[i].Counter {
				kind = prometheus.CounterValue
			}
			if outcome := metrics.All[i].Outcome; outcome != "" {
				labels = append(labels, outcome)
			}
			to <- prometheus.MustNewConstMetric(descs[i], kind, value, labels...)
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

// ServeHTTP answers with what TopLimited returns, as JSON: 10 keys of each, or as many as the parameter n
// says. Keys may be names of people: it is not for the public.
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
