package serve

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/promlimit"
)

// metrics are those of the service. Those of limits are of promlimit.
type metrics struct {
	registry *prometheus.Registry
	limits   *promlimit.Collector

	requests *prometheus.CounterVec   // by protocol, method and outcome
	duration *prometheus.HistogramVec // by method, of the rate limit service
	loads    *prometheus.CounterVec   // by result
	loaded   prometheus.Gauge

	envoy *envoyMetrics // nil if they are off
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		limits:   promlimit.New(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trypema_serve_requests_total",
			Help: "Number of requests, by protocol, method and outcome.",
		}, []string{"protocol", "method", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "trypema_serve_request_duration_seconds",
			Help: "Duration of requests to the rate limit service inside this server.",
			Buckets: []float64{
				1e-6,
				2.5e-6,
				5e-6,
				1e-5,
				2.5e-5,
				5e-5,
				1e-4,
				2.5e-4,
				5e-4,
				1e-3,
				2.5e-3,
				5e-3,
				1e-2,
				2.5e-2,
				5e-2,
				.1,
				.25,
				.5,
				1,
			},
		}, []string{"method"}),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trypema_serve_config_loads_total",
			Help: "Number of times that a configuration was put in place (success) or refused (error).",
		}, []string{"result"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "trypema_serve_config_last_load_timestamp_seconds",
			Help: "When the configuration in use was put in place, in seconds since 1970.",
		}),
	}
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trypema_build_info", Help: "1, with the version of the program and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	}, func() float64 { return 1 })
	m.registry.MustRegister(m.limits, m.requests, m.duration, m.loads, m.loaded, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"success", "error"} {
		m.loads.WithLabelValues(result)
	}
	return m
}

func (m *metrics) configured(err error) {
	result := "error"
	if err == nil {
		result = "success"
		m.loaded.SetToCurrentTime()
	}
	m.loads.WithLabelValues(result).Inc()
	if m.envoy != nil {
		m.envoy.loads[result].Inc()
	}
}

// counters are those of the outcomes of one method, found once.
type counters struct{ allowed, denied, wrong, failed prometheus.Counter }

func (m *metrics) counters(protocol, method string) *counters {
	of := func(outcome string) prometheus.Counter { return m.requests.WithLabelValues(protocol, method, outcome) }
	return &counters{of("allowed"), of("denied"), of("wrong"), of("failed")}
}

func (c *counters) count(over bool, err error) {
	switch {
	case err == nil && over:
		c.denied.Inc()
	case err == nil:
		c.allowed.Inc()
	default:
		if _, isClients := engine.Problem(err); isClients {
			c.wrong.Inc()
		} else {
			c.failed.Inc()
		}
	}
}

// rls returns what counts the requests to the rate limit service.
func (m *metrics) rls() func(method string, took time.Duration, over bool, err error) {
	type of struct {
		*counters
		took prometheus.Observer
	}
	counting := func(method string) of { return of{m.counters("rls", method), m.duration.WithLabelValues(method)} }
	grpc, json := counting("ShouldRateLimit"), counting("json")
	return func(method string, took time.Duration, over bool, err error) {
		one := grpc
		if method == "json" {
			one = json
		}
		one.count(over, err)
		one.took.Observe(took.Seconds())
		if m.envoy != nil {
			m.envoy.served(method, took, err)
		}
	}
}

// envoyMetrics are those of the Envoy rate limit service, by its names.
type envoyMetrics struct {
	engine   *engine.Engine
	requests *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	loads    map[string]prometheus.Counter // by result
	hits     [len(engine.Hits{})]*prometheus.Desc
}

func (m *metrics) addEnvoy(e *engine.Engine) {
	v := &envoyMetrics{
		engine: e,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ratelimit_service_total_requests", Help: "Number of requests.",
		}, []string{"grpc_method"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ratelimit_service_should_rate_limit_error", Help: "Number of requests that got an error.",
		}, []string{"err_type"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ratelimit_service_response_time_seconds", Help: "Duration of requests.",
		}, []string{"grpc_method"}),
		loads: make(map[string]prometheus.Counter),
	}
	for kind, of := range [...]struct{ name, help string }{
		engine.Total:    {"total_hits", "Hits of the rule."},
		engine.Over:     {"over_limit", "Hits that were refused."},
		engine.Near:     {"near_limit", "Hits above 80 % of the limit."},
		engine.Within:   {"within_limit", "Hits that were admitted."},
		engine.Shadow:   {"shadow_mode", "Hits that would have been refused, but for shadow mode."},
		engine.Returned: {"total_negative_hits", "Hits that were given back."},
	} {
		v.hits[kind] = prometheus.NewDesc("ratelimit_service_rate_limit_"+of.name, of.help,
			[]string{"domain", "key1", "key2"}, nil)
	}
	for _, name := range []string{"success", "error"} {
		v.loads[name] = prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ratelimit_service_config_load_" + name, Help: "Number of configurations: " + name + ".",
		})
		m.registry.MustRegister(v.loads[name])
	}
	m.envoy = v
	m.registry.MustRegister(v, v.requests, v.errors, v.duration)
}

func (v *envoyMetrics) served(method string, took time.Duration, err error) {
	v.requests.WithLabelValues(method).Inc()
	v.duration.WithLabelValues(method).Observe(took.Seconds())
	if err == nil {
		return
	}
	kind := "redis_error"
	if _, isClients := engine.Problem(err); isClients {
		kind = "service_error"
	}
	v.errors.WithLabelValues(kind).Inc()
}

// Describe implements prometheus.Collector.
func (v *envoyMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range v.hits {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (v *envoyMetrics) Collect(to chan<- prometheus.Metric) {
	// A name has the domain, the key of the first level, and what is below that. Two rules whose names are
	// the same in that form, as parts that are not UTF-8 are, are added up: a series must be there once.
	sums := make(map[[3]string]engine.Hits)
	for name, h := range v.engine.Hits {
		labels := envoyLabels(name)
		sum := sums[labels]
		for kind, n := range h {
			sum[kind] += n
		}
		sums[labels] = sum
	}
	for labels, sum := range sums {
		for kind, n := range sum {
			to <- prometheus.MustNewConstMetric(v.hits[kind], prometheus.CounterValue, float64(n), labels[:]...)
		}
	}
}
