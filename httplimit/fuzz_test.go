package httplimit_test

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
)

// What draft-ietf-httpapi-ratelimit-headers-11 and RFC 9651 allow of what we say: strings, and parameters
// that are whole numbers of at most 15 digits. A window is not 0.
var (
	policyValue = regexp.MustCompile(`^` + policyItem + `(, ` + policyItem + `)*$`)
	limitValue  = regexp.MustCompile(`^"[ !\x23-\x5b\x5d-\x7e]+";r=\d{1,15}(;t=\d{1,15})?$`)
	whole       = regexp.MustCompile(`^\d+$`)
)

const policyItem = `"[ !\x23-\x5b\x5d-\x7e]+";q=\d{1,15}(;w=[1-9]\d{0,14})?`

// FuzzHeaders: whatever the name, the window and the decision, the headers are such as clients can read, and
// one that waits for as long as they say comes not too early; or the options are refused.
func FuzzHeaders(f *testing.F) {
	f.Add("default", int64(time.Second), false, uint64(10), uint64(0), int64(time.Second+1), "", uint8(0))
	f.Add("api v1", int64(0), true, uint64(math.MaxInt64), uint64(math.MaxInt64), int64(0), "burst", uint8(0))
	f.Add("a\"b", int64(-1), false, uint64(0), uint64(1), int64(math.MaxInt64), "a\r\nb", uint8(1))
	f.Add("\x00é", int64(math.MaxInt64), false, uint64(math.MaxUint64), uint64(math.MaxUint64),
		int64(math.MaxInt64-1), "limit \\", uint8(2))
	f.Fuzz(func(
		t *testing.T, name string, w int64,
		allowed bool, limit, remaining uint64, retry int64, refusedBy string, headers uint8,
	) {
		d := trypema.Decision{Allowed: allowed, Limit: limit, Remaining: remaining,
			RetryAfter: time.Duration(max(retry, 0)), RefusedBy: refusedBy}
		if allowed {
			d.Outcome, d.RetryAfter, d.RefusedBy = trypema.OutcomeAllowed, 0, ""
		}
		wrap, err := httplimit.New(httplimit.Options{
			Decide:  func(*http.Request, string, uint64) (trypema.Decision, error) { return d, nil },
			Name:    name,
			Window:  time.Duration(w),
			Headers: httplimit.Headers(headers),
			Limits: func(*http.Request) []trypema.Limit {
				all := []trypema.Limit{
					{Name: refusedBy, Rate: trypema.Rate(limit), Window: time.Duration(w)},
					{Name: name, Rate: 1, Window: time.Minute},
					{Name: refusedBy + "-2", Rate: 1, Window: 2 * time.Minute},
				}
				return all[:remaining%4]
			},
		})
		if err != nil {
			if !errors.Is(err, trypema.ErrInvalidOptions) ||
				!strings.Contains(err.Error(), "httplimit.Options.") || !strings.Contains(err.Error(), "must") {
				t.Fatal(err)
			}
			return
		}
		r := httptest.NewRecorder()
		wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(r,
			httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		if want := map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[allowed]; r.Code != want {
			t.Fatalf("status %d, want %d", r.Code, want)
		}
		for field, syntax := range map[string]*regexp.Regexp{
			"Ratelimit-Policy": policyValue, "Ratelimit": limitValue, "Retry-After": whole,
			"X-Ratelimit-Limit": whole, "X-Ratelimit-Remaining": whole, "X-Ratelimit-Reset": whole,
		} {
			for _, value := range r.Header()[field] {
				if !syntax.MatchString(value) {
					t.Errorf("%s: %q", field, value)
				}
			}
		}
		told := names(r.Header(), "Ratelimit-Policy")
		for i, name := range told {
			if slices.Contains(told[:i], name) {
				t.Errorf("%q is there twice: %q", name, told)
			}
		}
		for _, name := range names(r.Header(), "Ratelimit") {
			if !slices.Contains(told, name) {
				t.Errorf("%q is none of %q", name, told)
			}
		}
		after := r.Header().Get("Retry-After")
		seconds, err := time.ParseDuration(after + "s")
		switch {
		case allowed || d.RetryAfter == trypema.Never:
			if after != "" {
				t.Errorf("Retry-After: %s, to %+v", after, d)
			}
		case err == nil && (seconds < d.RetryAfter || seconds-d.RetryAfter >= time.Second):
			t.Errorf("Retry-After: %s, to %+v", after, d)
		}
	})
}

// FuzzKeys: whatever a request has in its headers, a key is neither empty nor long, and two that are joined
// are told apart from all others.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"", " ", "a", "a:b", "1:a", strings.Repeat("x", 129), "\xff", "2001:db8::1"} {
		f.Add(s, "b", "192.0.2.1:7")
	}
	f.Add("a", "a", "[fe80::1%eth0]:1")
	f.Add("a", "a", "no address")
	header, hashed, address := httplimit.ByHeader("a"), httplimit.ByHashedHeader("b"), httplimit.ByIP()
	both := httplimit.Combine(httplimit.ByHeader("a"), httplimit.ByHeader("b"))
	f.Fuzz(func(t *testing.T, a, b, remote string) {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header["A"], r.Header["B"] = []string{a}, []string{b}
		r.RemoteAddr = remote
		for name, by := range map[string]httplimit.KeyFunc{"header": header, "hashed": hashed,
			"address": address, "both": both} {
			key, ok := by(r)
			if ok != (key != "") || len(key) > 300 {
				t.Fatalf("%s: %q, %v", name, key, ok)
			}
		}
		key, ok := both(r)
		r.Header["A"], r.Header["B"] = []string{b}, []string{a}
		if other, _ := both(r); ok && (other == key) != (strings.TrimSpace(a) == strings.TrimSpace(b)) {
			t.Fatalf("%q and %q are both %q", a, b, key)
		}
	})
}
