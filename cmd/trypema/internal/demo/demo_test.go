package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trypema/trypema/internal/proof/leak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redislimit"
)

func TestMain(m *testing.M) { leak.Main(m) }

// fake is an instance whose limiters answer as a test wants it.
type fake struct {
	trypema.Limiter // the verbs that the demo does not use
	trypema.Binder
	allow func() (trypema.Decision, error)
}

func (f fake) Absolute() trypema.Limiter   { return f }
func (f fake) Suppressed() trypema.Limiter { return f }
func (f fake) Close() error                { return nil }
func (f fake) Allow(context.Context, string, trypema.Rate) (trypema.Decision, error) {
	return f.allow()
}

// runWith runs the demo for some virtual seconds on a limiter of its own.
func runWith(t *testing.T, allow func() (trypema.Decision, error)) (r report, err error) {
	t.Helper()
	virtually(t, func(t *testing.T, w *web) {
		c := Command{
			Flags: store.Flags{Provider: "local"},
			Rate:  ptr(50.0), Load: 4, HardLimitFactor: 1.5, Duration: 2 * time.Second, Clients: 8, JSON: true,
			web: w,
			open: func(trypema.Options) ([]trypema.Provider, store.Where, error) {
				return []trypema.Provider{fake{allow: allow}}, store.Here, nil
			},
		}
		var stdout bytes.Buffer
		err = c.Run(t.Context(), screen.Streams{Out: &stdout, Err: io.Discard})
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, stdout.String())
		}
	})
	return r, err
}

func verdictOf(r report, guarantee, route string) verdict {
	for _, f := range r.Guarantees {
		if f.Guarantee == guarantee && f.Route == route {
			return f.Verdict
		}
	}
	return ""
}

func TestDemoOfLimiterThatAdmitsEverything(t *testing.T) {
	r, err := runWith(t, func() (trypema.Decision, error) {
		return trypema.Decision{Allowed: true, Outcome: trypema.OutcomeAllowed}, nil
	})
	if err == nil || flags.IsWrong(err) {
		t.Fatalf("error is %v, want broken guarantees", err)
	}
	for _, want := range []string{"/absolute G1 bound broken", "at most 25", "/suppressed G1 bound broken",
		"at most 37", "/suppressed G6 settled rate broken"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	if r.OK || verdictOf(r, "G1 bound", "/absolute") != broken || verdictOf(r, "sums", "/absolute") != held {
		t.Errorf("unexpected report: %+v", r)
	}
}

func TestDemoOfLimiterThatAdmitsNothing(t *testing.T) {
	r, err := runWith(t, func() (trypema.Decision, error) {
		return trypema.Decision{RetryAfter: time.Millisecond, Outcome: trypema.OutcomeSuppressed}, nil
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, guarantee := range []string{"G6 settled rate", "G6 longest pause"} {
		if verdictOf(r, guarantee, "/suppressed") != broken {
			t.Errorf("%s is not broken: %+v", guarantee, r.Guarantees)
		}
	}
	if verdictOf(r, "G1 bound", "/suppressed") != held {
		t.Errorf("G1 is not held: %+v", r.Guarantees)
	}
}

func TestDemoOfLimiterThatFails(t *testing.T) {
	r, err := runWith(t, func() (trypema.Decision, error) { return trypema.Decision{}, errors.New("out of order") })
	if err == nil || !strings.Contains(err.Error(), "out of order") || verdictOf(r, "sums", "/absolute") != broken {
		t.Errorf("error %v, report %+v", err, r)
	}
	for _, x := range r.Routes {
		if x.Errors == 0 || x.Errors != x.Failed || x.Offered > 0 {
			t.Errorf("%s: %d errors, %d requests failed, %d decided", x.Route, x.Errors, x.Failed, x.Offered)
		}
	}
}

func TestDemoWithoutTheServerItNeeds(t *testing.T) {
	r, err := runWith(t, func() (trypema.Decision, error) {
		return trypema.Decision{RetryAfter: time.Millisecond, Outcome: trypema.OutcomeSuppressed, Fallback: true}, nil
	})
	if err != nil || !r.OK {
		t.Fatalf("error %v, report %+v", err, r)
	}
	for _, x := range r.Routes {
		if x.Fallback == 0 || x.Fallback != x.Offered || x.Errors > 0 {
			t.Errorf("%s: %d of %d decisions are fallback, %d errors", x.Route, x.Fallback, x.Offered, x.Errors)
		}
	}
	for _, guarantee := range []string{"G6 settled rate", "G6 longest pause"} {
		if verdictOf(r, guarantee, "/suppressed") != notJudged {
			t.Errorf("%s is judged: %+v", guarantee, r.Guarantees)
		}
	}
}

// TestDemo judges each provider to have held all that is promised.
func TestDemo(t *testing.T) {
	for _, tt := range []struct {
		where  store.Where
		window time.Duration
	}{
		{store.Here, 4 * time.Second},
		{store.Where{Provider: store.Redis, Client: "go-redis", Server: "virtual", Instances: 2},
			1500 * time.Millisecond},
		{store.Where{Provider: store.Hybrid, Client: "go-redis", Server: "virtual", Instances: 2,
			SyncInterval: 10}, 1500 * time.Millisecond},
	} {
		t.Run(tt.where.Provider, func(t *testing.T) {
			virtually(t, func(t *testing.T, w *web) {
				c := Command{
					Flags: store.Flags{Provider: "local"},
					Rate:  ptr(50.0), Load: 2.2, HardLimitFactor: 1.5, Window: &tt.window,
					Duration: 4 * tt.window, Clients: 32, JSON: true,
					web: w,
					open: func(o trypema.Options) (all []trypema.Provider, _ store.Where, err error) {
						server := fakeredis.New()
						server.Delay = time.Millisecond
						for range tt.where.Instances {
							i, err := instanceOf(tt.where.Provider, server,
								redislimit.Options{Options: o, Instances: tt.where.Instances})
							if err != nil {
								return nil, tt.where, err
							}
							t.Cleanup(func() { _ = i.Close() })
							all = append(all, i)
						}
						return all, tt.where, nil
					},
				}
				var stdout, progress bytes.Buffer
				if err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: &progress}); err != nil {
					t.Fatalf("%v\n%s", err, &stdout)
				}
				var r report
				if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
					t.Fatalf("%v in %s", err, &stdout)
				}
				for _, f := range r.Guarantees {
					if f.Verdict != held {
						t.Errorf("%s (%s)", f, f.Note)
					}
				}
				if len(r.Guarantees) != 6 || !r.OK || r.Interrupted || len(r.Warnings) > 0 {
					t.Errorf("unexpected report: %+v", r)
				}
				for _, x := range r.Routes {
					if x.Offered != x.Admitted+x.Declined || x.Fallback+x.Errors+x.Failed+x.Skipped+x.Late > 0 {
						t.Errorf("unexpected sums: %+v", x)
					}
					// more than twice as much was offered
					if least := x.Capacity * 9 / 10; x.LargestAnyWindow < least {
						t.Errorf("%s: %d in the fullest window, want %d", x.Route, x.LargestAnyWindow, least)
					}
				}
				// In half of a window Absolute admits all of it. By chance alone Suppressed pauses for a
				// second once in a million runs.
				if a, s := r.Routes[0].LongestPause, r.Routes[1].LongestPause; tt.window == 4*time.Second && a < 2*s {
					t.Errorf("Absolute paused %vms, Suppressed %vms: the difference that the demo is to "+
						"show is missing", a, s)
				}
				if lines := strings.Count(progress.String(), "\n"); lines < 6 {
					t.Errorf("%d lines of progress, want one a second:\n%s", lines, &progress)
				}
			})
		})
	}
}

func instanceOf(provider string, server *fakeredis.Server, o redislimit.Options) (trypema.Provider, error) {
	if provider == store.Local {
		return trypema.NewLocal(o.Options)
	}
	return providerOn(server, provider, o)
}

// TestBusyMachine: when the calls come late, nothing is said of smoothness but that.
func TestBusyMachine(t *testing.T) {
	r, err := runWith(t, func() (trypema.Decision, error) {
		time.Sleep(60 * time.Millisecond)
		return trypema.Decision{RetryAfter: time.Millisecond, Outcome: trypema.OutcomeSuppressed}, nil
	})
	must.OK(t, err)
	for _, guarantee := range []string{"G6 settled rate", "G6 longest pause"} {
		if verdictOf(r, guarantee, "/suppressed") != notJudged {
			t.Errorf("%s is judged: %+v", guarantee, r.Guarantees)
		}
	}
	if !strings.Contains(strings.Join(r.Warnings, "\n"),
		"of the calls came more than 50ms late, or never: the machine is too busy") {
		t.Errorf("nothing warns of it: %q", r.Warnings)
	}
}

// TestDemoInRedis runs on real servers and sockets. What it says of smoothness depends on the machine, and is
// judged in TestDemo.
func TestDemoInRedis(t *testing.T) {
	two, often := 2, 10*time.Millisecond
	tests := []struct {
		flags store.Flags
		says  []string
	}{
		{store.Flags{Provider: "redis"}, []string{"redis by go-redis: "}},
		{store.Flags{Provider: "redis", Client: ptr("rueidis"), Instances: &two}, []string{"redis × 2 by rueidis: "}},
		{store.Flags{Provider: "hybrid", Instances: &two}, []string{"hybrid × 2 by go-redis: ", "settled every 5ms\n"}},
		{store.Flags{Provider: "hybrid", Client: ptr("rueidis"), SyncInterval: &often},
			[]string{"hybrid by rueidis: ", "settled every 10ms\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.says[0], func(t *testing.T) {
			t.Parallel()
			c := Command{
				Flags: tt.flags,
				Rate:  ptr(20.0), Load: 3, HardLimitFactor: 1.5, Duration: time.Second, Clients: 8,
			}
			var table, progress bytes.Buffer
			if err := c.Run(t.Context(), screen.Streams{Out: &table, Err: &progress}); err != nil {
				t.Fatalf("%v\n%s", err, &table)
			}
			tt.says[0] += "embedded miniredis, a stand-in whose speed means nothing\n"
			for _, want := range append(tt.says, "fallback, errors", "✓ /absolute G1 bound",
				"✓ /suppressed G1 bound", "✓ /suppressed sums") {
				if !strings.Contains(table.String(), want) {
					t.Errorf("nothing says %q:\n%s", want, &table)
				}
			}
			for line := range strings.Lines(table.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("a line of %d columns: %s", n, line)
				}
			}
			for _, want := range tt.says {
				if !strings.Contains(progress.String(), want) {
					t.Errorf("no progress says %q:\n%s", want, &progress)
				}
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// TestInstancesShareTheLoad: each client stays with a server of its own, and what all of them admit is judged
// together.
func TestInstancesShareTheLoad(t *testing.T) {
	const n = 3
	virtually(t, func(t *testing.T, w *web) {
		var calls [n]atomic.Uint64
		c := Command{
			Flags: store.Flags{Provider: "local"},
			Rate:  ptr(50.0), Load: 6, HardLimitFactor: 1.5, Duration: time.Second, Clients: 2 * n, JSON: true,
			web: w,
			open: func(trypema.Options) (all []trypema.Provider, _ store.Where, _ error) {
				for i := range n {
					all = append(all, fake{allow: func() (trypema.Decision, error) {
						return trypema.Decision{Allowed: calls[i].Add(1)%n == 0}, nil
					}})
				}
				return all, store.Here, nil
			},
		}
		var stdout, progress bytes.Buffer
		err := c.Run(t.Context(), screen.Streams{Out: &stdout, Err: &progress})
		if err == nil || !strings.Contains(err.Error(), "/absolute G1 bound broken") {
			t.Errorf("each admits what all of them may, and the error is %v", err)
		}
		var r report
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, &stdout)
		}
		total := uint64(0)
		for i := range calls {
			total += calls[i].Load()
		}
		if offered := r.Routes[0].Offered + r.Routes[1].Offered; offered != total {
			t.Errorf("%d calls were made, %d are accounted for", total, offered)
		}
		for i := range calls {
			if got := calls[i].Load(); got < total/n/2 {
				t.Errorf("server %d got %d of %d calls", i, got, total)
			}
		}
		if !strings.Contains(progress.String(), " and 2 more\n") {
			t.Errorf("nothing says how many servers there are:\n%s", &progress)
		}
	})
}

func TestGuardAnswers(t *testing.T) {
	tests := []struct {
		name       string
		decision   trypema.Decision
		status     int
		retryAfter string
	}{
		{"allowed", trypema.Decision{Allowed: true}, http.StatusOK, ""},
		{"exactly one second", trypema.Decision{RetryAfter: time.Second}, http.StatusTooManyRequests, "1"},
		{"rounded up", trypema.Decision{RetryAfter: time.Second + 1}, http.StatusTooManyRequests, "2"},
		{"never less than true", trypema.Decision{RetryAfter: 1}, http.StatusTooManyRequests, "1"},
		{"never", trypema.Decision{RetryAfter: trypema.Never}, http.StatusTooManyRequests, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := fake{allow: func() (trypema.Decision, error) { return tt.decision, nil }}
			w := httptest.NewRecorder()
			h, err := guard(l, 1, time.Second, newMeter(time.Second, 1))
			must.OK(t, err)
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/absolute", http.NoBody))
			if w.Code != tt.status || w.Header().Get("Retry-After") != tt.retryAfter {
				t.Errorf("got %d with Retry-After %q, want %d with %q", w.Code, w.Header().Get("Retry-After"),
					tt.status, tt.retryAfter)
			}
		})
	}
}

func TestOfferIsOpenLoop(t *testing.T) {
	offered := func(t *testing.T, status int, after, duration time.Duration, clients int) (got sent) {
		virtually(t, func(t *testing.T, w *web) {
			s, err := w.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(after)
				w.WriteHeader(status)
			}))
			must.OK(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), duration)
			defer cancel()
			got = w.offer(ctx, []string{s.url}, 400, clients)
			must.Report(t, s.close(t.Context()))
		})
		return got
	}
	t.Run("all calls are made while clients are free", func(t *testing.T) {
		got := offered(t, http.StatusOK, 5*time.Millisecond, time.Second, 64)
		// 400 ± 7σ. A call may be due in the last 5ms while its client is not free, one in thirty runs: more
		// than 5 such are one run in 10¹⁰.
		if got.admitted < 260 || got.admitted > 550 || got.declined+got.failed+got.late > 0 || got.skipped > 5 {
			t.Errorf("unexpected %+v", got)
		}
	})
	t.Run("what was due and not made is counted", func(t *testing.T) {
		got := offered(t, http.StatusTooManyRequests, 50*time.Millisecond, time.Second, 2) // two clients can make 40
		if got.declined > 42 || got.late < 30 || got.due() < 260 || got.due() > 550 {
			t.Errorf("unexpected %+v", got)
		}
	})
	t.Run("other answers are failures", func(t *testing.T) {
		got := offered(t, http.StatusTeapot, 0, 200*time.Millisecond, 8)
		if got.failed == 0 || got.answered() > 0 || !strings.Contains(got.firstFail.Error(), "418") {
			t.Errorf("unexpected %+v", got)
		}
	})
}
