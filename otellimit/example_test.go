package otellimit_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/otellimit"
)

// What is exported, here to a reader that is asked by hand.
func Example() {
	reader := sdk.NewManualReader()
	meter := sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("example.com/api")

	limited, err := otellimit.New(meter)
	if err != nil {
		panic(err)
	}
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: limited})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	if _, err := limits.Absolute().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
		panic(err)
	}

	var exported metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &exported); err != nil {
		panic(err)
	}
	decisions := exported.ScopeMetrics[0].Metrics[0]
	fmt.Println(decisions.Name)
	for _, p := range decisions.Data.(metricdata.Sum[float64]).DataPoints {
		if strategy, _ := p.Attributes.Value("strategy"); strategy.AsString() == "absolute" {
			outcome, _ := p.Attributes.Value("outcome")
			fmt.Println(outcome.AsString(), p.Value)
		}
	}
	// Unordered output:
	// trypema.decisions
	// allowed 1
	// rejected 0
}

func ExampleNew() {
	limited, err := otellimit.New(otel.Meter("example.com/api"))
	if err != nil {
		panic(err)
	}
	for _, policy := range []string{"login", "api"} {
		limits, err := trypema.NewLocal(trypema.Options{Name: policy, Observer: limited})
		if err != nil {
			panic(err)
		}
		limits.Close()
	}
	fmt.Println(len(limited.Meters()), "strategies")
	// Output: 4 strategies
}

// An Observer is given to a provider, which calls Observe; it can be one of several.
func ExampleObserver_Observe() {
	limited, err := otellimit.New(otel.Meter("example.com/api"))
	if err != nil {
		panic(err)
	}
	limited.Observe(trypema.Meter{Provider: "local", Policy: "of mine", Strategy: "absolute"})
	fmt.Println(limited.Meters()[0].Policy)
	// Output: of mine
}

func ExampleObserver_Close() {
	limited, err := otellimit.New(otel.Meter("example.com/api"))
	if err != nil {
		panic(err)
	}
	fmt.Println(limited.Close())
	// Output: <nil>
}

// The keys that are denied most are told on demand, and are in no attribute.
func ExampleObserver_Meters() {
	limited, err := otellimit.New(otel.Meter("example.com/api"))
	if err != nil {
		panic(err)
	}
	limits, err := trypema.NewLocal(trypema.Options{Name: "login", Observer: limited})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	for range 12 {
		if _, err := limits.Absolute().Allow(context.Background(), "ann", trypema.PerSecond(1)); err != nil {
			panic(err)
		}
	}
	for _, m := range limited.Meters() {
		for key, denied := range m.TopLimited(10) {
			fmt.Printf("%s, %s: %s was denied %d times\n", m.Policy, m.Strategy, key, denied)
		}
	}
	// Output: login, absolute: ann was denied 2 times
}
