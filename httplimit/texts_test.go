package httplimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/httplimit"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/redislimit"
)

// What a client is told, in headers and body, has no key, no prefix and no text of an error, whatever
// happened.
func TestClientsAreToldNoSecrets(t *testing.T) {
	secret := `the Redis key "{billing:tenant:acme alice@example.com}:a:10s": WRONGTYPE, from 10.1.2.3:6379, hunter2`
	secrets := []string{
		"billing", "acme", "alice", "10.1.2.3", "6379", "edis", "WRONGTYPE", "trypema", "rate is", "hunter2", ".go:",
	}
	f := fakeredis.New()
	f.Fault = func(string) ([]any, error) { return nil, fakeredis.ErrKey }
	o := redislimit.Options{Prefix: "billing", Timeout: time.Minute}
	redis := fixture.Redis(t, f, o)
	hybrid := fixture.Hybrid(t, f, hybridlimit.Options{Options: o})
	local := fixture.Local(t, trypema.Options{Window: time.Minute})
	acme := func(*http.Request) (string, bool) { return "tenant:acme alice@example.com", true }
	keyless := func(*http.Request) (string, bool) { return "acme", false }
	fails := func(err error) func(*http.Request, string, uint64) (trypema.Decision, error) {
		return func(*http.Request, string, uint64) (trypema.Decision, error) { return trypema.Decision{}, err }
	}
	zero := func(*http.Request) trypema.Rate { return 0 }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	type options = httplimit.Options
	for name, tt := range map[string]struct {
		o    options
		ctx  context.Context
		want int
	}{
		"denied":     {options{Limiter: local.Absolute(), Rate: trypema.PerMinute(1)}, t.Context(), 429},
		"suppressed": {options{Limiter: local.Suppressed(), Rate: trypema.PerMinute(1)}, t.Context(), 429},
		"without a key": {
			options{Limiter: local.Absolute(), Rate: 1, Key: keyless, Keyless: httplimit.KeylessDeny}, t.Context(), 400,
		},
		"a wrong rate":     {options{Limiter: local.Absolute(), RateOf: zero}, t.Context(), 503},
		"redis":            {options{Limiter: redis.Absolute(), Rate: 10}, t.Context(), 503},
		"redis suppressed": {options{Limiter: redis.Suppressed(), Rate: 10}, t.Context(), 503},
		"hybrid":           {options{Limiter: hybrid.Absolute(), Rate: 10}, t.Context(), 503},
		"trouble":          {options{Decide: fails(errors.New(secret))}, t.Context(), 503},
		"an unknown policy": {
			options{Decide: fails(fmt.Errorf("%s: %w", secret, trypema.ErrUnknownPolicy))}, t.Context(), 503,
		},
		"an ended context": {options{Limiter: redis.Absolute(), Rate: 10}, ended, 0},
	} {
		for headers := range httplimit.NoHeaders + 1 {
			tt.o.Headers = headers
			if tt.o.Key == nil {
				tt.o.Key = acme
			}
			limit, err := httplimit.New(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			handler := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			var w *httptest.ResponseRecorder
			for range 3 { // the first may pass
				w = httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest("GET", "/", http.NoBody).WithContext(tt.ctx))
			}
			if tt.want > 0 && w.Code != tt.want {
				t.Errorf("%s: status %d, want %d", name, w.Code, tt.want)
			}
			told := fmt.Sprint(w.Header(), w.Body)
			for _, s := range secrets {
				if strings.Contains(told, s) {
					t.Errorf("%s: the client is told %q: %s", name, s, told)
				}
			}
		}
	}
}
