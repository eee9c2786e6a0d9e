package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
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

// fiveTokens is a question of five tokens, which cost 2 micro-dollars each.
const fiveTokens = "what is a needle for"

func open(t *testing.T, requests, tokens, micros uint64, ask model) http.Handler {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	a, err := newAPI(limits, requests, tokens, micros, ask)
	must.OK(t, err)
	return a.handler()
}

func get(ctx context.Context, h http.Handler, user, question string, most int) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet,
		fmt.Sprint("/answer?max=", most, "&question=", url.QueryEscape(question)), http.NoBody)
	r.Header.Set("X-User", user)
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }() // as net/http does
		h.ServeHTTP(w, r.WithContext(ctx))
	}()
	return w
}

// left is what is left by the limits that are told, in the order in which a request passes them.
func left(w *httptest.ResponseRecorder) string {
	var all []string
	for _, item := range w.Header()["Ratelimit"] {
		all = append(all, strings.ReplaceAll(item, `"`, ""))
	}
	return fmt.Sprint(w.Code, " ", strings.Join(all, ", "))
}

// An answer reserves the most that it can cost, and costs what it has cost.
func TestEstimates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, 10, 100, 1000, parrot)
		// 5 + 50 tokens are reserved, and 10 + 500 micro-dollars.
		first := get(t.Context(), h, "ada", fiveTokens, 50)
		if got := left(first); got != "200 requests;r=9, tokens;r=45, micro-dollars;r=490" ||
			strings.Join(strings.Fields(first.Body.String()), " ") != fiveTokens {
			t.Errorf("%s: %q", got, first.Body)
		}
		// It has cost 5 + 5 tokens, and 10 + 50 micro-dollars; this one is cut after 3 + 2.
		got := left(get(t.Context(), h, "ada", "a b c", 2))
		if got != "200 requests;r=8, tokens;r=85, micro-dollars;r=914" {
			t.Error(got)
		}
		got = left(get(t.Context(), h, "bob", fiveTokens, 50))
		if got != "200 requests;r=9, tokens;r=45, micro-dollars;r=490" {
			t.Errorf("another user: %s", got)
		}
		// 85 tokens are left of ada's, and 914 micro-dollars.
		for most, want := range map[int]string{
			81: "429 requests;r=7, tokens;r=85;t=", 80: "200 ",
		} {
			h := open(t, 10, 100, 1000, parrot)
			get(t.Context(), h, "ada", fiveTokens, 50)
			get(t.Context(), h, "ada", "a b c", 2)
			if got := left(get(t.Context(), h, "ada", fiveTokens, most)); !strings.HasPrefix(got, want) {
				t.Errorf("up to %d tokens: %s, want %s", most, got, want)
			}
		}
	})
}

// The limits hold in any window, whatever becomes of the answers, and what was denied has cost nothing.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(context.Context, string) iter.Seq[string] { return func(func(string) bool) {} }
		h := open(t, 3, 1000, 1000, silent)
		for i, want := range []string{
			"200 requests;r=2, tokens;r=990, micro-dollars;r=940",
			"200 requests;r=1, tokens;r=985, micro-dollars;r=930",
			"200 requests;r=0, tokens;r=980, micro-dollars;r=920",
			"429 requests;r=0;t=60",
		} {
			if got := left(get(t.Context(), h, "ada", fiveTokens, 5)); got != want {
				t.Errorf("request %d: %s, want %s", i, got, want)
			}
		}
		time.Sleep(time.Minute)
		// The money of the day stays spent: 970 are left, and 10 + 10 × 97 are too much. The tokens of the
		// request that is denied for that are free again.
		got := left(get(t.Context(), h, "ada", fiveTokens, 97))
		if !strings.HasPrefix(got, "429 requests;r=2, tokens;r=898, micro-dollars;r=970;t=") {
			t.Error(got)
		}
		got = left(get(t.Context(), h, "ada", fiveTokens, 96))
		if got != "200 requests;r=1, tokens;r=899, micro-dollars;r=0" {
			t.Error(got)
		}
	})
}

// Who hangs up pays for what was said until then; so does a model that breaks.
func TestHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, 10, 100, 1000, parrot)
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond) // two tokens
		defer cancel()
		get(ctx, h, "ada", fiveTokens, 50)
		if got := left(get(t.Context(), h, "ada", "", 0)); got != "400 requests;r=8, tokens;r=92, micro-dollars;r=969" {
			t.Errorf("after hanging up: %s", got) // an empty question reserves one
		}
		h = open(t, 10, 100, 1000, func(context.Context, string) iter.Seq[string] {
			return func(yield func(string) bool) { yield("one"); panic("broken") }
		})
		get(t.Context(), h, "ada", fiveTokens, 50)
		if got := left(get(t.Context(), h, "ada", "", 0)); got != "400 requests;r=8, tokens;r=93, micro-dollars;r=979" {
			t.Errorf("after a panic: %s", got)
		}
	})
	if w := get(t.Context(), open(t, 1, 1, 1, parrot), "", fiveTokens, 1); w.Code != http.StatusBadRequest {
		t.Errorf("without a user: %d", w.Code)
	}
}

// The program serves until it is told to end, and lets answers come to their end.
func TestRun(t *testing.T) {
	address, interrupt, status := programtest.Serve(t, run, "--tokens", "20")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		address+"/answer?max=2&question=hello+there", http.NoBody)
	must.OK(t, err)
	r.Header.Set("X-User", "ada")
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	response, err := client.Do(r)
	must.OK(t, err)
	interrupt()
	text, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || string(text) != "hello\nthere\n" {
		t.Errorf("%q, %v", text, err)
	}
	client.CloseIdleConnections()
	if got := <-status; got != 0 {
		t.Errorf("exit status %d", got)
	}
}

func TestFlags(t *testing.T) {
	test := programtest.Flags(t, run)
	test("--budget -1", 2, "llm: --budget is -1; it must be from 0 to 1e9")
	test("--budget NaN", 2, "llm: --budget is NaN; it must be from 0 to 1e9")
	test("--tokens many", 2, `invalid value "many" for flag -tokens`)
	test("more", 2, `llm: unexpected argument "more"`)
	test("--addr nowhere", 1, "llm: listen tcp: address nowhere: missing port in address")
	test("--help", 0, "dollars a day")
}
