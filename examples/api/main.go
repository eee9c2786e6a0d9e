// Command api is an HTTP API with plans: who is on the plan "free" may call it less often than who is on
// "pro", each by an API key of their own.
//
//	go run ./examples/api
//	go run ./examples/api --free 3 --pro 30 --window 10s
//
//	curl -i -H 'X-API-Key: ada' localhost:8080/quote     costs 1
//	curl -i -H 'X-API-Key: bob' localhost:8080/report    costs 5
//
// Ada is on the plan pro, Bob on free. A call too many is answered with 429 and a Retry-After that is true.
// Ctrl-C ends it.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/program"
	"github.com/trypema/trypema/httplimit"
)

func main() { program.Main(run) }

// run is a program.Run.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := program.Flags("api", stderr)
	addr := flags.String("addr", "localhost:8080", "where to listen")
	free := flags.Int("free", 10, "calls in a window on the plan free")
	pro := flags.Int("pro", 100, "calls in a window on the plan pro")
	window := flags.Duration("window", time.Minute, "the length of the window")
	if status, ok := program.Parse(flags, args); !ok {
		return status
	}
	err := cmp.Or(
		program.Check(flags.NArg() == 0, "unexpected argument %q", flags.Arg(0)),
		program.Check(*free >= 1, "--free is %d; it must be at least 1", *free),
		program.Check(*pro >= *free, "--pro is %d; it must be at least --free (%d)", *pro, *free),
		program.Check(*window >= time.Millisecond, "--window is %v; it must be at least 1ms", *window),
	)
	if err != nil {
		return program.Fail(flags, 2, err)
	}

	limits, err := trypema.NewLocal(trypema.Options{Window: *window})
	if err != nil {
		return program.Fail(flags, 2, err)
	}
	defer limits.Close()
	a := &api{
		limiter: limits.Absolute(),
		window:  *window,
		customers: map[string]plan{
			"ada": {"pro", trypema.Per(float64(*pro), *window)},
			"bob": {"free", trypema.Per(float64(*free), *window)},
		},
	}
	h, err := a.handler()
	if err == nil {
		// Shutdown waits 5s for a connection that was opened and not used yet, as browsers and pools of
		// clients do.
		err = program.Serve(ctx, *addr, h, 10*time.Second, stdout)
	}
	if err != nil {
		return program.Fail(flags, 1, err)
	}
	return 0
}

// plan is what a customer pays for.
type plan struct {
	name string
	rate trypema.Rate
}

// api knows the customers by their API keys, and limits each.
type api struct {
	limiter   trypema.Limiter
	window    time.Duration
	customers map[string]plan
}

func (a *api) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		cost    uint64
		text    string
	}{
		{"GET /quote", 1, "Festina lente.\n"},
		{"GET /report", 5, "All quotes are true.\n"},
	} {
		limit, err := a.limit(route.cost)
		if err != nil {
			return nil, err
		}
		mux.Handle(route.pattern, a.customersOnly(limit(say(route.text))))
	}
	return mux, nil
}

func say(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

const apiKey = "X-API-Key"

func (a *api) planOf(r *http.Request) (plan, bool) {
	p, known := a.customers[r.Header.Get(apiKey)]
	return p, known
}

// customersOnly stands before the limit, so that callers cannot fill it with keys that they make up.
func (a *api) customersOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, known := a.planOf(r); !known {
			http.Error(w, apiKey+" must be the key of a customer", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limit lets a call through if its customer has as much left as it costs.
func (a *api) limit(cost uint64) (func(http.Handler) http.Handler, error) {
	return httplimit.New(httplimit.Options{
		Limiter: a.limiter,
		Window:  a.window,
		Name:    "plan",
		Key:     httplimit.ByHeader(apiKey),
		RateOf: func(r *http.Request) trypema.Rate {
			p, _ := a.planOf(r)
			return p.rate
		},
		Cost: func(*http.Request) uint64 { return cost },
		Denied: func(w http.ResponseWriter, r *http.Request, d trypema.Decision) {
			if d.RetryAfter == trypema.Never {
				p, _ := a.planOf(r)
				http.Error(w,
					fmt.Sprintf("the plan %s has %d for a window, this costs %d", p.name, d.Limit, cost),
					http.StatusForbidden)
				return
			}
			http.Error(w, "too many calls, retry in "+d.RetryAfter.String(), http.StatusTooManyRequests)
		},
	})
}
