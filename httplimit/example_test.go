package httplimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
)

func Example() {
	limits, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	if err != nil {
		panic(err)
	}
	defer limits.Close()
	limit, err := httplimit.New(httplimit.Options{Limiter: limits.Absolute(), Rate: trypema.PerMinute(2),
		Window: time.Minute})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /hello", limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello")
	})))

	for range 3 {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/hello", http.NoBody))
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"), w.Header().Get("RateLimit"))
	}
	// Output:
	// 200 "default";q=2;w=60 "default";r=1
	// 200 "default";q=2;w=60 "default";r=0
	// 429 "default";q=2;w=60 "default";r=0;t=60
}

// Plans have rates of their own, and writing costs more than reading.
func ExampleNew() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute})
	defer limits.Close()
	limit, err := httplimit.New(httplimit.Options{
		Limiter: limits.Absolute(),
		Key:     httplimit.ByHashedHeader("X-API-Key"),
		RateOf: func(r *http.Request) trypema.Rate {
			if r.Header.Get("X-Plan") == "pro" { // which a gateway has set
				return trypema.PerMinute(1000)
			}
			return trypema.PerMinute(10)
		},
		Cost: func(r *http.Request) uint64 {
			if r.Method == http.MethodGet {
				return 1
			}
			return 5
		},
	})
	if err != nil {
		panic(err)
	}
	h := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, plan := range []string{"free", "free", "free", "pro"} {
		r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		r.Header.Set("X-API-Key", "secret")
		r.Header.Set("X-Plan", plan)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(plan, w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// free 200 "default";q=10;w=60
	// free 200 "default";q=10;w=60
	// free 429 "default";q=10;w=60
	// pro 200 "default";q=1000;w=60
}

func request(remote string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/users/7", http.NoBody)
	r.RemoteAddr = remote
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func ExampleByIP() {
	key := httplimit.ByIP()
	fmt.Println(key(request("192.0.2.7:4711")))
	fmt.Println(key(request("[2001:db8:1:2:3:4:5:6]:4711"))) // a customer has a whole network
	fmt.Println(key(request("192.0.2.7:4711", "X-Forwarded-For", "198.51.100.1")))
	// Output:
	// 192.0.2.7 true
	// 2001:db8:1:2::/64 true
	// 192.0.2.7 true
}

func ExampleByForwardedIP() {
	key, err := httplimit.ByForwardedIP("X-Forwarded-For", netip.MustParsePrefix("10.0.0.0/8"))
	if err != nil {
		panic(err)
	}
	// the first one wrote the client
	fmt.Println(key(request("10.0.0.1:80", "X-Forwarded-For", "203.0.113.9, 198.51.100.1")))
	fmt.Println(key(request("192.0.2.7:80", "X-Forwarded-For", "198.51.100.1"))) // no proxy of ours
	// Output:
	// 198.51.100.1 true
	// 192.0.2.7 true
}

// A proxy on the same machine calls by a unix socket, and each customer has an IPv6 network of 56 bits.
func ExampleByClientIP() {
	key, err := httplimit.ByClientIP(httplimit.ClientIPOptions{
		Header:   "Forwarded",
		Peers:    httplimit.PeersOnUnixSockets,
		IPv6Bits: 56,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(key(request("@", "Forwarded", `for=203.0.113.9, for="[2001:db8:1:2ff::17]:4711"`)))
	fmt.Println(key(request("192.0.2.7:80", "Forwarded", "for=198.51.100.1"))) // not the proxy
	// Output:
	// 2001:db8:1:200::/56 true
	// 192.0.2.7 true
}

func ExampleByHeader() {
	key := httplimit.ByHeader("X-Tenant")
	fmt.Println(key(request("192.0.2.7:80", "X-Tenant", "acme")))
	fmt.Println(key(request("192.0.2.7:80")))
	// Output:
	// acme true
	//  false
}

func ExampleByHashedHeader() {
	key := httplimit.ByHashedHeader("Authorization")
	fmt.Println(key(request("192.0.2.7:80", "Authorization", "secret")))
	// Output: 2bb80d537b1da3e38bd30361aa855686 true
}

func ExampleByPattern() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) {})
	fmt.Println(httplimit.ByPattern(mux)(request("192.0.2.7:80")))
	// Output: GET /users/{id} true
}

// Each client has a limit of its own for each route.
func ExampleCombine() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(http.ResponseWriter, *http.Request) {})
	key := httplimit.Combine(httplimit.ByIP(), httplimit.ByPattern(mux))
	fmt.Println(key(request("192.0.2.7:80")))
	// Output: 9:192.0.2.715:GET /users/{id} true
}

// All limits of a Bound are told to clients.
func ExampleNew_severalLimits() {
	provider, _ := trypema.NewLocal(trypema.Options{})
	defer provider.Close()
	both, err := provider.Bind(trypema.StrategyAbsolute,
		trypema.AtMost(10, time.Minute).Named("minute"), trypema.AtMost(1000, 24*time.Hour).Named("day"))
	if err != nil {
		panic(err)
	}
	limit, err := httplimit.New(httplimit.Options{Bound: both, Cost: func(*http.Request) uint64 { return 6 }})
	if err != nil {
		panic(err)
	}
	h := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 2 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("192.0.2.7:80"))
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// 200 "minute";q=10;w=60, "day";q=1000;w=86400
	// 429 "minute";q=10;w=60, "day";q=1000;w=86400
}

// Each customer is limited by a plan, and the handler knows what is left.
func ExampleNew_policies() {
	provider, _ := trypema.NewLocal(trypema.Options{})
	defer provider.Close()
	plans, err := trypema.NewPolicies(provider,
		trypema.Policy{Name: "free", Limits: []trypema.Limit{trypema.AtMost(10, time.Minute)}},
		trypema.Policy{Name: "pro", Limits: []trypema.Limit{trypema.AtMost(1000, time.Minute)}})
	if err != nil {
		panic(err)
	}
	limit, err := httplimit.New(httplimit.Options{
		Policies: plans,
		PolicyOf: func(r *http.Request) string { return r.Header.Get("X-Plan") }, // which a gateway has set
		Key:      httplimit.ByHeader("X-Customer"),
	})
	if err != nil {
		panic(err)
	}
	h := limit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		d, _ := trypema.FromContext(r.Context())
		fmt.Println(d.Remaining, "are left")
	}))
	h.ServeHTTP(httptest.NewRecorder(), request("192.0.2.7:80", "X-Customer", "ada", "X-Plan", "pro"))
	h.ServeHTTP(httptest.NewRecorder(), request("192.0.2.7:80", "X-Customer", "bob", "X-Plan", "free"))
	// Output:
	// 999 are left
	// 9 are left
}

// An administrator forgets what an address has used.
func ExampleOptions_KeyOf() {
	provider, _ := trypema.NewLocal(trypema.Options{})
	defer provider.Close()
	perAddress, err := provider.Bind(trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
	if err != nil {
		panic(err)
	}
	o := httplimit.Options{Bound: perAddress}

	key, ok := o.KeyOf(&http.Request{RemoteAddr: "2001:db8:1:2:3:4:5:6"})
	fmt.Println(key, ok, perAddress.Delete(context.Background(), key))
	// Output: 2001:db8:1:2::/64 true <nil>
}

// Machines of one's own are not limited.
func ExampleSkipNetworks() {
	skip, err := httplimit.SkipNetworks(httplimit.ClientIPOptions{}, "10.0.0.0/8", "2001:db8::1")
	if err != nil {
		panic(err)
	}
	fmt.Println(skip(request("10.1.2.3:80")), skip(request("192.0.2.7:80", "X-Forwarded-For", "10.1.2.3")))
	// Output: true false
}

func ExampleTransport_KeyOf() {
	provider, _ := trypema.NewLocal(trypema.Options{})
	defer provider.Close()
	transport, err := httplimit.NewTransport(httplimit.TransportOptions{Limiter: provider.Absolute(), Rate: 10})
	if err != nil {
		panic(err)
	}
	r, _ := http.NewRequest(http.MethodGet, "https://Example.com:443/", http.NoBody)
	fmt.Println(transport.KeyOf(r))
	// Output: example.com true
}

// A client that is done with a server closes its connections as ever.
func ExampleTransport_CloseIdleConnections() {
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	transport, err := httplimit.NewTransport(httplimit.TransportOptions{Limiter: limits.Absolute(), Rate: 10})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: transport}
	client.CloseIdleConnections()
}

func ExampleNewTransport() {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	limits, _ := trypema.NewLocal(trypema.Options{})
	defer limits.Close()
	perHost, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(2, time.Hour))
	if err != nil {
		panic(err)
	}
	transport, err := httplimit.NewTransport(httplimit.TransportOptions{
		Bound:   perHost,
		MaxWait: time.Second,
		Base:    server.Client().Transport,
	})
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: transport}
	for range 3 {
		response, err := client.Get(server.URL)
		var denied *httplimit.DeniedError
		switch {
		case errors.As(err, &denied):
			fmt.Println(denied.Outcome, "for", denied.RetryAfter.Round(time.Minute))
		case err != nil:
			panic(err)
		default:
			fmt.Println(response.Status)
			_ = response.Body.Close()
		}
	}
	// Output:
	// 200 OK
	// 200 OK
	// rejected for 1h0m0s
}

// tokens is a Reserver for a thousand tokens an hour, of which a request takes a hundred at first.
func tokens() (of *httplimit.Reserver, perUser *trypema.Bound, end func()) {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		panic(err)
	}
	perUser, err = limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(1000, time.Hour))
	if err != nil {
		panic(err)
	}
	of, err = httplimit.NewReserver(httplimit.Options{
		Bound: perUser,
		Key:   httplimit.ByHeader("X-User"),
		Cost:  func(*http.Request) uint64 { return 100 },
	}, 10*time.Minute)
	if err != nil {
		panic(err)
	}
	return of, perUser, func() { _ = limits.Close() }
}

// A handler reports what its answer has cost while it streams it.
func ExampleNewReserver() {
	tokens, perUser, end := tokens()
	defer end()
	h := tokens.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, token := range []string{"Festina", "lente"} {
			tokens.Spent(r.Context(), 1)
			fmt.Fprintln(w, token)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), request("192.0.2.7:80", "X-User", "ada"))
	usage, err := perUser.Usage(context.Background(), "ada")
	fmt.Println(usage[0].Total, err)
	// Output: 2 <nil>
}

func ExampleReserver_Wrap() {
	tokens, _, end := tokens()
	defer end()
	mux := http.NewServeMux()
	mux.Handle("POST /answers", tokens.Wrap(http.NotFoundHandler()))
}

// A handler that spends nothing says so, or else it pays the estimate.
func ExampleReserver_Spent() {
	tokens, perUser, end := tokens()
	defer end()
	h := tokens.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens.Spent(r.Context(), 0)
		http.Error(w, "there is no question", http.StatusBadRequest)
	}))
	h.ServeHTTP(httptest.NewRecorder(), request("192.0.2.7:80", "X-User", "ada"))
	usage, err := perUser.Usage(context.Background(), "ada")
	fmt.Println(usage[0].Total, err)
	// Output: 0 <nil>
}

func ExampleReserver_KeyOf() {
	tokens, _, end := tokens()
	defer end()
	fmt.Println(tokens.KeyOf(request("192.0.2.7:80", "X-User", "ada")))
	// Output: ada true
}
