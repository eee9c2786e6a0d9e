package promlimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/promlimit"
)

// observed returns a Collector, and limits that have admitted ten logins of ann and denied two.
func observed() (*promlimit.Collector, *trypema.Local) {
	limited := promlimit.New()
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: limited})
	if err != nil {
		panic(err)
	}
	for range 12 {
		if _, err := limits.Absolute().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
			panic(err)
		}
	}
	return limited, limits
}

// What Prometheus gets from the endpoint that it scrapes.
func Example() {
	limited, limits := observed()
	defer limits.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(limited)
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})

	answer := httptest.NewRecorder()
	metrics.ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", http.NoBody))
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(line, `trypema_decisions_total{`) && strings.Contains(line, "absolute") {
			fmt.Print(line)
		}
	}
	// Output:
	// trypema_decisions_total{outcome="allowed",policy="login",provider="local",strategy="absolute"} 10
	// trypema_decisions_total{outcome="rejected",policy="login",provider="local",strategy="absolute"} 2
}

func ExampleNew() {
	limited := promlimit.New()
	prometheus.NewRegistry().MustRegister(limited)

	for _, policy := range []string{"login", "api"} {
		limits, err := trypema.NewLocal(trypema.Options{Name: policy, Observer: limited})
		if err != nil {
			panic(err)
		}
		limits.Close()
	}
	fmt.Println("two policies, four strategies")
	// Output: two policies, four strategies
}

// A Collector is given to a provider, which calls Observe; it can be one of several observers.
func ExampleCollector_Observe() {
	limited, others := promlimit.New(), new(trypema.Meters)
	limits, err := trypema.NewLocal(trypema.Options{Observer: trypema.Observers(limited, others)})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	for _, m := range others.All() {
		limited.Observe(m) // what Options.Observer does
	}
	fmt.Println(len(others.All()), "strategies")
	// Output: 2 strategies
}

// A registry asks a Collector what it has, and for that.
func ExampleCollector_Describe() {
	described := make(chan *prometheus.Desc, 100)
	promlimit.New().Describe(described)
	fmt.Println(len(described), "metrics")
	// Output: 15 metrics
}

func ExampleCollector_Collect() {
	limited, limits := observed()
	defer limits.Close()

	metrics := make(chan prometheus.Metric, 100)
	limited.Collect(metrics)
	fmt.Println(len(metrics), "time series and histograms for two strategies")
	// Output: 9 time series and histograms for two strategies
}

func ExampleCollector_TopLimited() {
	limited, limits := observed()
	defer limits.Close()

	for _, key := range limited.TopLimited(10) {
		fmt.Printf("%s, %s: %s was denied %d times\n", key.Policy, key.Strategy, key.Key, key.Denied)
	}
	// Output: login, absolute: ann was denied 2 times
}

// An endpoint for those who run the service.
func ExampleCollector_ServeHTTP() {
	limited, limits := observed()
	defer limits.Close()

	answer := httptest.NewRecorder()
	limited.ServeHTTP(answer, httptest.NewRequest("GET", "/limited?n=1", http.NoBody))
	fmt.Print(answer.Body)
	// Output: [{"policy":"login","provider":"local","strategy":"absolute","key":"ann","denied":2}]
}
