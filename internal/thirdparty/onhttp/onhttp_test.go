package onhttp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
	vegeta "github.com/tsenart/vegeta/v12/lib"
	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/redislimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func middleware(t *testing.T, o httplimit.Options) func(http.Handler) http.Handler {
	t.Helper()
	limit, err := httplimit.New(o)
	check(t, err)
	return limit
}

func local(t *testing.T) *trypema.Local {
	t.Helper()
	l, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

// TestRouters: in each of them, two of three requests pass, and the third is answered by the limit.
func TestRouters(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
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
		"gin": func(limit func(http.Handler) http.Handler) http.Handler {
			g := gin.New()
			g.Use(func(c *gin.Context) {
				passed := false
				limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(c.Writer, c.Request)
				if !passed {
					c.Abort()
				}
			})
			g.GET("/users/:id", func(c *gin.Context) { c.String(http.StatusOK, c.Param("id")) })
			return g
		},
		"gin, all of it": func(limit func(http.Handler) http.Handler) http.Handler {
			g := gin.New()
			g.GET("/users/:id", func(c *gin.Context) { c.String(http.StatusOK, c.Param("id")) })
			return limit(g)
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

// TestLoad: callers ask real servers as fast as they can, on each provider and strategy. Every answer has the headers of the draft, and no
// window has more admissions than it may.
func TestLoad(t *testing.T) {
	const (
		window   = time.Second
		rate     = 200
		length   = 2500 * time.Millisecond
		callers  = 16
		hardness = 1.5
	)
	server := redisserver.Start(t)
	type provider interface {
		Absolute() trypema.Limiter
		Suppressed() trypema.Limiter
		trypema.MultiProvider
		Close() error
	}
	conn := func(t *testing.T) redislimit.Conn {
		client := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
		t.Cleanup(func() { check(t, client.Close()) })
		return goredisconn.New(client)
	}
	options := trypema.Options{Window: window, HardLimitFactor: hardness}
	for name, instances := range map[string]func(t *testing.T) []provider{
		"Local": func(t *testing.T) []provider {
			l, err := trypema.NewLocal(options)
			check(t, err)
			return []provider{l}
		},
		"Redis": func(t *testing.T) (all []provider) {
			for range 2 {
				p, err := redislimit.New(conn(t), redislimit.Options{Options: options, Prefix: t.Name(), Timeout: 5 * time.Second})
				check(t, err)
				all = append(all, p)
			}
			return all
		},
		"Hybrid": func(t *testing.T) (all []provider) {
			for range 2 {
				p, err := hybridlimit.New(conn(t), hybridlimit.Options{Options: redislimit.Options{Options: options, Prefix: t.Name(), Timeout: 5 * time.Second}})
				check(t, err)
				all = append(all, p)
			}
			return all
		},
	} {
		for _, kind := range []string{"Absolute", "Suppressed", "both"} {
			suppressed, both := kind == "Suppressed", kind == "both"
			t.Run(name+" "+kind, func(t *testing.T) {
				var urls []string
				for _, p := range instances(t) {
					limiter, bound := p.Absolute(), p.Close
					if suppressed {
						limiter = p.Suppressed()
					}
					o := httplimit.Options{Limiter: limiter, Rate: rate} // the window is the limiter's
					if both {
						all := []trypema.Limit{
							{Name: "second", Rate: rate, Window: window},
							{Name: "two seconds", Rate: 0.75 * rate, Window: 2 * window},
						}
						m, err := p.Multi(trypema.StrategyAbsolute, all...)
						check(t, err)
						o = httplimit.Options{
							Decide: func(r *http.Request, key string, n uint64) (trypema.Decision, error) {
								return m.AllowN(r.Context(), key, n)
							},
							Limits: func(*http.Request) []trypema.Limit { return all },
						}
					}
					limit := middleware(t, o)
					s := httptest.NewServer(limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through") })))
					t.Cleanup(func() { s.Close(); check(t, bound()) })
					urls = append(urls, s.URL)
				}
				policies := []string{"default"}
				if both {
					policies = []string{"second", "two seconds"}
				}
				admitted, denied := load(t, urls, callers, length, policies)
				most := rate
				if suppressed {
					most = int(rate * hardness)
				}
				if n := fullest(admitted, window); n > most {
					t.Errorf("%d admitted in a window, of at most %d", n, most)
				}
				if n := fullest(admitted, 2*window); both && n > 1.5*rate {
					t.Errorf("%d admitted in two seconds, of at most %v", n, 1.5*rate)
				}
				least := int(1.5 * rate * length.Seconds() / 2)
				if both {
					least = rate * 5 / 4
				}
				if len(admitted) < least || denied == 0 {
					t.Errorf("%d admitted and %d denied, want at least %d admitted", len(admitted), denied, least)
				}
			})
		}
	}
}

// span is when a request was under way that was admitted.
type span struct{ from, to time.Duration }

// load has callers ask in turn, as fast as they can, by vegeta.
func load(
	t *testing.T, urls []string, callers int, length time.Duration, policies []string,
) (admitted []span, denied int) {
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	var targets []vegeta.Target
	for _, url := range urls {
		targets = append(targets, vegeta.Target{Method: http.MethodGet, URL: url})
	}
	workers := uint64(callers)
	attacker := vegeta.NewAttacker(vegeta.Client(&http.Client{Transport: transport}), vegeta.Workers(workers), vegeta.MaxWorkers(workers))
	began := time.Now()
	for result := range attacker.Attack(vegeta.NewStaticTargeter(targets...), vegeta.Rate{}, length, t.Name()) {
		switch result.Code {
		case http.StatusOK:
			from := result.Timestamp.Sub(began)
			admitted = append(admitted, span{from, from + result.Latency})
		case http.StatusTooManyRequests:
			denied++
		default:
			t.Fatalf("%d %s", result.Code, result.Error)
		}
		fields(t, result.Headers, result.Code == http.StatusTooManyRequests, policies...)
	}
	return admitted, denied
}

// fullest is the number of admissions that lie in one window for certain: they began and ended in it.
func fullest(all []span, window time.Duration) (most int) {
	slices.SortFunc(all, func(a, b span) int { return int(a.to - b.to) })
	var starts []time.Duration // sorted, of those that ended by then and may lie in a window with it
	for _, s := range all {
		at, _ := slices.BinarySearch(starts, s.from)
		starts = slices.Insert(starts, at, s.from)
		first, _ := slices.BinarySearch(starts, s.to-window+1)
		starts = starts[first:]
		most = max(most, len(starts))
	}
	return most
}
