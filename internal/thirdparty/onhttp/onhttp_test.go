package onhttp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

func TestMain(m *testing.M) { leak.Main(m) }

func middleware(t *testing.T, o httplimit.Options) func(http.Handler) http.Handler {
	t.Helper()
	limit, err := httplimit.New(o)
	must.OK(t, err)
	return limit
}

func local(t *testing.T) *trypema.Local {
	t.Helper()
	l, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	must.OK(t, err)
	t.Cleanup(func() { must.OK(t, l.Close()) })
	return l
}

// TestRouters: in each of them, two of three requests pass, and the third is answered by the limit.
func TestRouters(t *testing.T) {
	for name, router := range map[string]func(limit func(http.Handler) http.Handler) http.Handler{
		"net/http": func(limit func(http.Handler) http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("GET /users/{id}", limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("id")) })))
			return mux
		},
		"chi": func(limit func(http.Handler) http.Handler) http.Handler {
			r := chi.NewRouter()
			r.Use(limit)
			r.Get("/users/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, chi.URLParam(r, "id")) })
			return r
		},
		"echo": func(limit func(http.Handler) http.Handler) http.Handler {
			e := echo.New()
			e.Use(echo.WrapMiddleware(limit))
			e.GET("/users/:id", func(c echo.Context) error { return c.String(http.StatusOK, c.Param("id")) })
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := router(middleware(t, httplimit.Options{Limiter: local(t).Absolute(), Rate: trypema.PerMinute(2), Window: time.Minute}))
			for i, want := range []int{200, 200, 429} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/7", http.NoBody))
				body := w.Body.String()
				if w.Code != want || (want == 200) != (body == "7") {
					t.Errorf("request %d: %d, %s", i, w.Code, body)
				}
				fields(t, w.Header(), want == 429, "default")
			}
		})
	}
}

// fields reads RateLimit and RateLimit-Policy as structured fields, and checks that they are what the draft
// asks for: the same policies whether a request was denied or not, and one of them with what is left of it.
func fields(t *testing.T, h http.Header, denied bool, policies ...string) {
	t.Helper()
	items := func(name string) (all []httpsfv.Item) {
		list, err := httpsfv.UnmarshalList(h.Values(name))
		if err != nil || len(list) == 0 {
			t.Errorf("%s is %q: %v", name, h.Values(name), err)
		}
		for _, member := range list {
			all = append(all, member.(httpsfv.Item))
		}
		return all
	}
	number := func(i httpsfv.Item, name string) int64 {
		v, _ := i.Params.Get(name)
		n, ok := v.(int64)
		if !ok {
			return -1
		}
		return n
	}
	limits := items("RateLimit")
	if len(limits) != 1 {
		t.Errorf("RateLimit has %d items", len(limits))
		return
	}
	limit := limits[0]
	r, at := number(limit, "r"), number(limit, "t")
	var told []string
	named := false
	for _, policy := range items("RateLimit-Policy") {
		name, _ := policy.Value.(string)
		told = append(told, name)
		q, w := number(policy, "q"), number(policy, "w")
		if q < 1 || w < 1 {
			t.Errorf("policy %s: q=%d, w=%d", name, q, w)
		}
		if name == limit.Value {
			named = true
			if r < 0 || r > q || (at >= 0) != denied {
				t.Errorf("policy %s: q=%d, r=%d, t=%d, denied %v", name, q, r, at, denied)
			}
		}
	}
	if !slices.Equal(told, policies) || !named {
		t.Errorf("policies %q, want %q; the limit is of %v", told, policies, limit.Value)
	}
	if retry := h.Get("Retry-After"); denied && retry != strconv.FormatInt(at, 10) || !denied && retry != "" {
		t.Errorf("Retry-After is %q, t is %d", retry, at)
	}
}

// TestLoad: callers ask real servers for more than the limit, on each provider and strategy. Every answer has
// the headers of the draft, no window has more admissions than it may, and where the denials of a provider
// are exact, none comes while there is room.
func TestLoad(t *testing.T) {
	const (
		window   = time.Second // as headers count
		capacity = 60
		hardness = 1.5
	)
	rate := trypema.Per(capacity, window)
	server := redisserver.Start(t)
	conn := func(t *testing.T) redislimit.Conn {
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true, ReadTimeout: rig.Patience})
		t.Cleanup(func() { must.OK(t, client.Close()) })
		return goredisconn.New(client)
	}
	options := trypema.Options{Window: window, Bucket: 5 * time.Millisecond, HardLimitFactor: hardness}
	for name, instances := range map[string]func(t *testing.T) []trypema.Provider{
		"Local": func(t *testing.T) []trypema.Provider {
			l, err := trypema.NewLocal(options)
			must.OK(t, err)
			return []trypema.Provider{l}
		},
		"Redis": func(t *testing.T) (all []trypema.Provider) {
			for range 2 {
				p, err := redislimit.New(conn(t),
					redislimit.Options{Options: options, Prefix: t.Name(), Timeout: rig.Patience})
				must.OK(t, err)
				all = append(all, p)
			}
			return all
		},
		"Hybrid": func(t *testing.T) (all []trypema.Provider) {
			for range 2 {
				p, err := hybridlimit.New(conn(t), hybridlimit.Options{Options: redislimit.Options{Options: options, Prefix: t.Name(), Timeout: rig.Patience}})
				must.OK(t, err)
				all = append(all, p)
			}
			return all
		},
	} {
		for _, kind := range []string{"Absolute", "Suppressed", "both"} {
			suppressed, both := kind == "Suppressed", kind == "both"
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				var urls []string
				for _, p := range instances(t) {
					limiter, bound := p.Absolute(), p.Close
					if suppressed {
						limiter = p.Suppressed()
					}
					o := httplimit.Options{Limiter: limiter, Rate: rate} // the window is the limiter's
					if both {
						all := []trypema.Limit{
							{Name: "window", Rate: rate, Window: window},
							{Name: "two windows", Rate: 0.75 * rate, Window: 2 * window},
						}
						m, err := p.Bind(trypema.StrategyAbsolute, all...)
						must.OK(t, err)
						o = httplimit.Options{Bound: m}
					}
					limit := middleware(t, o)
					s := httptest.NewServer(limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through") })))
					t.Cleanup(func() { s.Close(); must.OK(t, bound()) })
					urls = append(urls, s.URL)
				}
				policies := []string{"default"}
				if both {
					policies = []string{"window", "two windows"}
				}
				// For more than one window, so that room comes back.
				admitted, denied := load(t, urls, capacity*3/2, 20, policies)
				most := uint64(capacity)
				if suppressed {
					most = capacity * 3 / 2
				}
				if n := anywindow.Most(admitted, window); n > most {
					t.Errorf("%d admitted in a window, of at most %d", n, most)
				}
				if n := anywindow.Most(admitted, 2*window); both && n > 1.5*capacity {
					t.Errorf("%d admitted in two windows, of at most %v", n, 1.5*capacity)
				}
				if n := rig.Fewest(admitted, denied, window+options.Bucket+slew); kind == "Absolute" &&
					name != "Hybrid" && n < capacity {
					t.Errorf("a denial with %d of %d in the window", n, capacity)
				}
			})
		}
	}
}

// slew is how much clocks may go astray in a window.
const slew = 50 * time.Millisecond

// load has callers ask in turn until so many requests were admitted and denied.
func load(
	t *testing.T, urls []string, admissions, denials int, policies []string,
) (admitted, denied []anywindow.Admission) {
	const callers = 4
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(admitted) >= admissions && len(denied) >= denials || t.Failed()
	}
	for i := range callers {
		all.Go(func() {
			for n := i; !enough(); n++ {
				if time.Since(began) > rig.Patience {
					t.Errorf("%d admitted and %d denied, want %d and %d", len(admitted), len(denied),
						admissions, denials)
					return
				}
				from := time.Now()
				r, err := client.Get(urls[n%len(urls)])
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				a := anywindow.Admission{From: from, To: time.Now(), Cost: 1}
				mu.Lock()
				switch r.StatusCode {
				case http.StatusOK:
					admitted = append(admitted, a)
				case http.StatusTooManyRequests:
					denied = append(denied, a)
				default:
					t.Error(r.Status)
				}
				fields(t, r.Header, r.StatusCode == http.StatusTooManyRequests, policies...)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	all.Wait()
	return admitted, denied
}
