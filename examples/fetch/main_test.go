package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/programtest"
	"github.com/trypema/trypema/internal/proof/anywindow"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts is a network in virtual time. It keeps when each host was asked.
type hosts struct {
	answer func(r *http.Request) *http.Response
	asked  map[string][]anywindow.Admission
}

func (h *hosts) RoundTrip(r *http.Request) (*http.Response, error) {
	now := time.Now()
	h.asked[r.URL.Host] = append(h.asked[r.URL.Host], anywindow.Admission{From: now, To: now, Cost: 1})
	return h.answer(r), nil
}

func ok() *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader("hello"))}
}

// open returns a fetcher that gives each host 5 calls in a window of 10 s.
func open(t *testing.T, h *hosts) *fetcher {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	h.asked = make(map[string][]anywindow.Admission)
	return &fetcher{&http.Client{Transport: &polite{h, limits.Absolute(), trypema.Per(5, 10*time.Second)}}, 3}
}

// However long the answers take: never more than 5 in any 10 s to a host, and not much less than that.
func TestNeverTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(explore.Seed(t), 0))
		h := &hosts{answer: func(*http.Request) *http.Response {
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
			return ok()
		}}
		f := open(t, h)
		began := time.Now()
		for i := range 100 {
			if a, err := f.fetch(t.Context(), fmt.Sprintf("http://api.test/%d", i)); err != nil ||
				a.status != http.StatusOK || a.size != 5 {
				t.Fatal(a, err)
			}
		}
		asked := h.asked["api.test"]
		if got := anywindow.Most(asked, 10*time.Second); len(asked) != 100 || got != 5 {
			t.Errorf("%d calls, %d in some window, want 100 and 5", len(asked), got)
		}
		if took := time.Since(began); took > 205*time.Second { // 19 windows and what is left of the last
			t.Errorf("took %v", took)
		}
	})
}

func TestHostsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{answer: func(*http.Request) *http.Response { return ok() }}
		f := open(t, h)
		began := time.Now()
		for i := range 10 {
			if _, err := f.fetch(t.Context(), fmt.Sprintf("http://host%d.test/", i%2)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("5 calls to each of two hosts took %v", took)
		}
	})
}

// A host has one limit, however URLs spell it.
func TestSpellingsOfAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{answer: func(*http.Request) *http.Response { return ok() }}
		f := open(t, h)
		began := time.Now()
		for _, host := range []string{"api.test", "API.test", "api.test:80", "api.test.", "Api.Test.:80", "api.test"} {
			if _, err := f.fetch(t.Context(), "http://"+host+"/"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 10*time.Second {
			t.Errorf("6 calls to one host took %v", took)
		}
	})
}

// Where the client follows a redirect, that is a call, too.
func TestRedirectsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{answer: func(r *http.Request) *http.Response {
			response := ok()
			if r.URL.Path == "/old" {
				response.StatusCode = http.StatusFound
				response.Header.Set("Location", "/new")
			}
			return response
		}}
		f := open(t, h)
		for range 20 {
			if a, err := f.fetch(t.Context(), "http://api.test/old"); err != nil || a.status != http.StatusOK {
				t.Fatal(a, err)
			}
		}
		if asked := h.asked["api.test"]; len(asked) != 40 || anywindow.Most(asked, 10*time.Second) != 5 {
			t.Errorf("%d calls, %d in some window, want 40 and 5", len(asked), anywindow.Most(asked, 10*time.Second))
		}
	})
}

func TestBusyHosts(t *testing.T) {
	for _, test := range []struct {
		name       string
		status     int
		retryAfter func() string
		busy       int // how many times
		want       int
		asked      int
		took       time.Duration
	}{
		{"in seconds", 429, func() string { return "7" }, 1, 200, 2, 7 * time.Second},
		{"as a date", 503, func() string {
			return time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat)
		}, 2, 200, 3, 18 * time.Second},
		{"too often", 429, func() string { return "1" }, 9, 429, 3, 2 * time.Second},
		{"does not say when", 503, func() string { return "" }, 1, 503, 1, 0},
		{"something else", 404, func() string { return "1" }, 1, 404, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				busy := test.busy
				h := &hosts{answer: func(*http.Request) *http.Response {
					response := ok()
					if busy > 0 {
						busy--
						response.StatusCode = test.status
						response.Header.Set("Retry-After", test.retryAfter())
					}
					return response
				}}
				f := open(t, h)
				began := time.Now()
				a, err := f.fetch(t.Context(), "http://api.test/")
				if err != nil || a.status != test.want || len(h.asked["api.test"]) != test.asked ||
					time.Since(began) != test.took {
					t.Errorf("%+v, %v after %v and %d calls; want %d after %v and %d",
						a, err, time.Since(began), len(h.asked["api.test"]), test.want, test.took, test.asked)
				}
			})
		})
	}
}

func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{answer: func(*http.Request) *http.Response { return ok() }}
		f := open(t, h)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		var err error
		for err == nil {
			_, err = f.fetch(ctx, "http://api.test/")
		}
		if took := time.Since(began); took != 3*time.Second || len(h.asked["api.test"]) != 5 {
			t.Errorf("%v after %v and %d calls", err, took, len(h.asked["api.test"]))
		}
	})
}

// The program, on a real server. It asks for four pages in any 300ms; how close together they arrive depends
// on the machine.
func TestProgram(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "hello")
	}))
	defer server.Close()

	args := []string{"--calls", "4", "--per", "100ms", "--slack", "200ms"}
	for i := range 11 {
		args = append(args, fmt.Sprint(server.URL, "/", i))
	}
	args = append(args, server.URL+"/none")
	var stdout, stderr bytes.Buffer
	began := time.Now()
	if status := run(t.Context(), args, &stdout, &stderr); status != 1 || stderr.Len() > 0 {
		t.Errorf("exit status %d, want 1 as one is missing: %s", status, stderr.String())
	}
	// the last four wait for two windows
	if took := time.Since(began); asked.Load() != 12 || took < 2*300*time.Millisecond {
		t.Errorf("%d calls in %v, want 12 in 600ms at least", asked.Load(), took)
	}
	if lines := strings.Split(strings.TrimSpace(stdout.String()), "\n"); len(lines) != 12 ||
		!strings.HasPrefix(lines[0], "200        5 bytes") || !strings.HasPrefix(lines[11], "404") {
		t.Errorf("it says:\n%s", stdout.String())
	}
}

func TestFlags(t *testing.T) {
	test := programtest.Flags(t, run)
	test("", 2, "fetch: no URL to fetch")
	test("--calls 0 http://a.test", 2, "fetch: --calls is 0; it must be at least 1")
	test("--per 0s http://a.test", 2, "fetch: --per is 0s; it must be at least 1ms")
	test("--slack -1s http://a.test", 2, "fetch: --slack is -1s; it must be at least 0s")
	test("--tries 0 http://a.test", 2, "fetch: --tries is 0; it must be at least 1")
	test("--timeout 0s http://a.test", 2, "fetch: --timeout is 0s; it must be above 0s")
	test("--calls many http://a.test", 2, `invalid value "many" for flag -calls`)
	test("a.test", 1, `fetch: Get "a.test": unsupported protocol scheme ""`)
	test("--help", 0, "how many calls a host gets")
}
