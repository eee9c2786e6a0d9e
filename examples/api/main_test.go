package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/programtest"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const window = 10 * time.Second

// open returns the API with 3 calls in a window for bob, and 30 for ada.
func open(t *testing.T) http.Handler {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{Window: window})
	a := &api{limits.Absolute(), window, map[string]plan{
		"ada": {"pro", trypema.Per(30, window)},
		"bob": {"free", trypema.Per(3, window)},
	}}
	h, err := a.handler()
	must.OK(t, err)
	return h
}

func get(h http.Handler, key, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPlans(t *testing.T) {
	for _, test := range []struct {
		key, policy string
		capacity    int
	}{
		{"ada", `"plan";q=30;w=10`, 30},
		{"bob", `"plan";q=3;w=10`, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := open(t)
			for i := range test.capacity + 2 {
				w := get(h, test.key, "/quote")
				status, remaining := http.StatusOK, test.capacity-1-i
				if remaining < 0 {
					status, remaining = http.StatusTooManyRequests, 0
				}
				if w.Code != status {
					t.Fatalf("%s: call %d: status %d, want %d", test.key, i, w.Code, status)
				}
				if got := w.Header().Get("RateLimit-Policy"); got != test.policy {
					t.Errorf("%s: RateLimit-Policy %s, want %s", test.key, got, test.policy)
				}
				name, _, _ := strings.Cut(test.policy, ";")
				got, want := w.Header().Get("RateLimit"), fmt.Sprintf("%s;r=%d", name, remaining)
				if !strings.HasPrefix(got, want) {
					t.Errorf("%s: call %d: RateLimit %s, want %s", test.key, i, got, want)
				}
				if got := w.Header().Get("Retry-After"); (got == "") != (status == http.StatusOK) {
					t.Errorf("%s: call %d: Retry-After %q", test.key, i, got)
				}
			}
		})
	}
}

// One customer has nothing to do with another.
func TestCustomersAreApart(t *testing.T) {
	h := open(t)
	for range 10 {
		get(h, "bob", "/quote")
	}
	if w := get(h, "bob", "/quote"); w.Code != http.StatusTooManyRequests {
		t.Errorf("bob: status %d", w.Code)
	}
	if w := get(h, "ada", "/quote"); w.Code != http.StatusOK {
		t.Errorf("ada: status %d", w.Code)
	}
}

func TestRetryAfterIsTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		get(h, "bob", "/quote")
		time.Sleep(2500 * time.Millisecond)
		get(h, "bob", "/quote")
		get(h, "bob", "/quote")
		w := get(h, "bob", "/quote")
		if got := w.Header().Get("Retry-After"); got != "8" { // 7.5s, rounded up
			t.Fatalf("status %d, Retry-After %q, want 8", w.Code, got)
		}
		after, err := strconv.Atoi(w.Header().Get("Retry-After"))
		must.OK(t, err)
		time.Sleep(time.Duration(after-1) * time.Second)
		if w := get(h, "bob", "/quote"); w.Code != http.StatusTooManyRequests {
			t.Errorf("a second earlier: status %d", w.Code)
		}
		time.Sleep(time.Second)
		if w := get(h, "bob", "/quote"); w.Code != http.StatusOK {
			t.Errorf("after Retry-After: status %d", w.Code)
		}
	})
}

func TestCosts(t *testing.T) {
	h := open(t)
	if w := get(h, "ada", "/report"); w.Code != http.StatusOK || w.Header().Get("RateLimit") != `"plan";r=25` {
		t.Errorf("ada: status %d, RateLimit %s", w.Code, w.Header().Get("RateLimit"))
	}
	w := get(h, "bob", "/report") // costs more than he ever has
	if w.Code != http.StatusForbidden || w.Header().Get("Retry-After") != "" {
		t.Errorf("bob: status %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	if want := "the plan free has 3 for a window, this costs 5\n"; w.Body.String() != want {
		t.Errorf("bob: %q, want %q", w.Body.String(), want)
	}
}

func TestStrangers(t *testing.T) {
	h := open(t)
	for _, key := range []string{"", "eve"} {
		if w := get(h, key, "/quote"); w.Code != http.StatusUnauthorized || w.Header().Get("RateLimit") != "" {
			t.Errorf("key %q: status %d, RateLimit %q", key, w.Code, w.Header().Get("RateLimit"))
		}
	}
}

// The limit holds over all connections of a real server, which ends when it is told to.
func TestServer(t *testing.T) {
	url, interrupt, status := programtest.Serve(t, run, "--free", "20", "--window", "1h")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var served, denied atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 10 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/quote", http.NoBody)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-API-Key", "bob")
				response, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				switch response.StatusCode {
				case http.StatusOK:
					served.Add(1)
				case http.StatusTooManyRequests:
					denied.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if served.Load() != 20 || denied.Load() != 60 {
		t.Errorf("%d served, %d denied, want 20 and 60", served.Load(), denied.Load())
	}
	unused, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")) // the end does not fail on it
	must.OK(t, err)
	defer unused.Close() //nolint:errcheck // the server has closed it
	interrupt()
	if got := <-status; got != 0 {
		t.Errorf("exit status %d", got)
	}
}

func TestFlags(t *testing.T) {
	test := programtest.Flags(t, run)
	test("--free 0", 2, "api: --free is 0; it must be at least 1")
	test("--free 10 --pro 5", 2, "api: --pro is 5; it must be at least --free (10)")
	test("--window 0s", 2, "api: --window is 0s; it must be at least 1ms")
	test("--window 2000000h", 2, "api: trypema: Options.Window is 2000000h0m0s; it must be from 1ms to 876000h0m0s")
	test("--window soon", 2, `invalid value "soon" for flag -window`)
	test("more", 2, `api: unexpected argument "more"`)
	test("--addr nowhere", 1, "api: listen tcp: address nowhere: missing port in address")
	test("--help", 0, "the length of the window")
}
