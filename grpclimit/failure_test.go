package grpclimit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/redislimit"
)

// log is a logger, and what it has said.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// panicking is a limiter that panics at each call.
type panicking struct{ trypema.Limiter }

// faulty is a limiter that has an error for each call.
type faulty struct {
	trypema.Limiter
	err error
}

func (f faulty) AllowN(context.Context, string, trypema.Rate, uint64) (trypema.Decision, error) {
	return trypema.Decision{}, f.err
}

// secrets are what may not leave the process.
var secrets = []string{
	"billing", "acme", "alice", "10.1.2.3", "6379", "edis", "WRONGTYPE", "trypema", "invalid rate", "rate is",
	"hunter2", ".go:",
}

func tells(t *testing.T, err error) {
	t.Helper()
	text := prototext.Format(status.Convert(err).Proto())
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("the client is told %q: %s", s, text)
		}
	}
}

// each calls a server with a limit in every way, and returns how each of them ended.
func each(t *testing.T, l *grpclimit.Limit) map[string]error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := dial(t, l, nil)
	return map[string]error{"unary": check(ctx, c), "stream": watch(ctx, c)}
}

// Whatever goes wrong, a client is told a code and a plain text. The reason is in the log, and in the error
// that this process has.
func TestErrorsAreNotTold(t *testing.T) {
	secret := `the Redis key "{billing:tenant:acme alice@example.com}:a:10s": WRONGTYPE, 10.1.2.3:6379, hunter2`
	wrapped := func(err error) error { return fmt.Errorf("%s: %w", secret, err) }
	for _, tt := range []struct {
		name string
		err  error
		code codes.Code
	}{
		{"ErrInvalidRate", wrapped(trypema.ErrInvalidRate), codes.Internal},
		{"ErrInvalidCost", wrapped(trypema.ErrInvalidCost), codes.Internal},
		{"ErrInvalidKey", wrapped(trypema.ErrInvalidKey), codes.Internal},
		{"ErrInvalidOptions", wrapped(trypema.ErrInvalidOptions), codes.Internal},
		{"ErrUnknownPolicy", wrapped(trypema.ErrUnknownPolicy), codes.Internal},
		{"a mistake and more", errors.Join(errors.New(secret), wrapped(trypema.ErrInvalidRate)), codes.Internal},
		{"ErrClosed", wrapped(trypema.ErrClosed), codes.Unavailable},
		{"ErrUnavailable", wrapped(redislimit.ErrUnavailable), codes.Unavailable},
		{"ErrInDoubt", wrapped(redislimit.ErrInDoubt), codes.Unavailable},
		{"trouble", errors.New(secret), codes.Unavailable},
		{"another context than that of the call", wrapped(context.DeadlineExceeded), codes.Unavailable},
		{"a status of somebody else", status.Error(codes.NotFound, secret), codes.Unavailable},
		{"a wrapped status of somebody else", wrapped(status.Error(codes.NotFound, secret)), codes.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := new(log)
			o := grpclimit.Options{Limiter: faulty{err: tt.err}, Rate: 1, Logger: said.logger(), Name: "api"}
			for call, err := range each(t, limit(t, o)) {
				if status.Code(err) != tt.code {
					t.Errorf("%s: %v, want the code %v", call, err, tt.code)
				}
				tells(t, err)
			}
			line := regexp.MustCompile(`policy=api method=/grpc\.health\.v1\.Health/.* error=.*hunter2.*\n$`)
			if !line.MatchString(said.String()) || strings.Count(said.String(), "\n") != 1 {
				t.Errorf("the log says %q", said)
			}
			// In the process, the cause is there.
			err := check(t.Context(), dial(t, nil, limit(t, o)))
			if tells(t, err); !errors.Is(err, tt.err) || status.Code(err) != tt.code {
				t.Errorf("on a client: %v", err)
			}
			if text := err.Error(); strings.Contains(text, "acme") {
				t.Errorf("on a client it says %q", text)
			}
		})
	}
}

// The same with errors that providers return, of the contents of a key, and of the context.
func TestErrorsOfProvidersAreNotTold(t *testing.T) {
	f := fakeredis.New()
	f.Fault = func(string) ([]any, error) { return nil, fakeredis.ErrKey }
	o := redislimit.Options{Prefix: "billing", Timeout: time.Minute}
	redis := fixture.Redis(t, f, o)
	hybrid := fixture.Hybrid(t, f, hybridlimit.Options{Options: o})
	acme := func(context.Context, string) (string, bool) { return "tenant:acme", true }
	no := func(context.Context, string) (string, bool) { return "", true }
	rate := func(r trypema.Rate) func(context.Context, string) trypema.Rate {
		return func(context.Context, string) trypema.Rate { return r }
	}
	type options = grpclimit.Options
	for name, tt := range map[string]struct {
		o    options
		code codes.Code
	}{
		"redis, something else":    {options{Limiter: redis.Absolute(), Rate: 10, Key: acme}, codes.Unavailable},
		"redis suppressed":         {options{Limiter: redis.Suppressed(), Rate: 10, Key: acme}, codes.Unavailable},
		"hybrid, something else":   {options{Limiter: hybrid.Absolute(), Rate: 10, Key: acme}, codes.Unavailable},
		"redis, an empty key":      {options{Limiter: redis.Absolute(), Rate: 10, Key: no}, codes.Internal},
		"hybrid, an empty key":     {options{Limiter: hybrid.Absolute(), Rate: 10, Key: no}, codes.Internal},
		"a rate that is none":      {options{Limiter: limiter(t), Key: acme, RateOf: rate(-1)}, codes.Internal},
		"a rate that is too small": {options{Limiter: limiter(t), Key: acme, RateOf: rate(1e-9)}, codes.Internal},
	} {
		tt.o.Logger = new(log).logger()
		for call, err := range each(t, limit(t, tt.o)) {
			if tells(t, err); status.Code(err) != tt.code {
				t.Errorf("%s, %s: %v, want the code %v", name, call, err, tt.code)
			}
		}
	}

	said := new(log)
	l := limit(t, grpclimit.Options{Limiter: redis.Absolute(), Rate: 10, Key: acme, Logger: said.logger()})
	for code, ctx := range map[codes.Code]context.Context{
		codes.Canceled: canceled(t), codes.DeadlineExceeded: late(t),
	} {
		_, err := l.UnaryServer()(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/a/b"}, nil)
		if tells(t, err); status.Code(err) != code || said.String() != "" {
			t.Errorf("%v, want the code %v; the log says %q", err, code, said)
		}
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func late(t *testing.T) context.Context {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	cancel()
	return ctx
}

// A name that cannot be encoded costs a client no detail, nor does a wait that is none.
func TestDeniedWithANameThatIsNotUTF8(t *testing.T) {
	decide := func(context.Context, string, string, uint64) (trypema.Decision, error) {
		return trypema.Decision{RefusedBy: "caf\xe9", RetryAfter: -time.Second}, nil
	}
	err := check(t.Context(), dial(t, limit(t, grpclimit.Options{Decide: decide}), nil))
	retry, subject := denial(t, err)
	if details := status.Convert(err).Details(); retry != 0 || subject != "caf\ufffd" || len(details) != 2 {
		t.Errorf("retry in %v, %q, %v", retry, subject, details)
	}
}

// Failed has the word, and no call passes for that it says nothing.
func TestFailed(t *testing.T) {
	said := new(log)
	var own error
	o := grpclimit.Options{
		Limiter: faulty{err: trypema.ErrInvalidRate}, Rate: 1, Logger: said.logger(),
		Failed: func(_ context.Context, method string, err error) error {
			if !strings.HasPrefix(method, "/grpc.health.v1.Health/") || !errors.Is(err, trypema.ErrInvalidRate) {
				t.Errorf("Failed got %s, %v", method, err)
			}
			return own
		},
	}
	l := limit(t, o)
	for _, want := range []codes.Code{codes.Internal, codes.FailedPrecondition} {
		for call, err := range each(t, l) {
			if status.Code(err) != want {
				t.Errorf("%s: %v, want %v", call, err, want)
			}
		}
		own = status.Error(codes.FailedPrecondition, "no plan")
	}
	if said.String() != "" {
		t.Errorf("the log says %q, though there is Failed", said)
	}
	o.Shadow = true
	for call, err := range each(t, limit(t, o)) {
		if err != nil {
			t.Errorf("in shadow, %s: %v", call, err)
		}
	}
	if !strings.Contains(said.String(), "invalid rate") {
		t.Errorf("in shadow, the log says %q", said)
	}
}

// brokenOptions are options with a function that panics.
func brokenOptions(t *testing.T) map[string]grpclimit.Options {
	const broken = "broken, with hunter2"
	l := limiter(t)
	return map[string]grpclimit.Options{
		"Key":    {Limiter: l, Rate: 10, Key: func(context.Context, string) (string, bool) { panic(broken) }},
		"RateOf": {Limiter: l, RateOf: func(context.Context, string) trypema.Rate { panic(broken) }},
		"Cost":   {Limiter: l, Rate: 10, Cost: func(context.Context, string) uint64 { panic(broken) }},
		"Skip":   {Limiter: l, Rate: 10, Skip: func(context.Context, string) bool { panic(broken) }},
		"Seen": {Limiter: l, Rate: 10,
			Seen: func(context.Context, string, trypema.Decision, error) { panic(broken) }},
		"Limiter": {Limiter: panicking{}, Rate: 10},
		"Decide": {Decide: func(context.Context, string, string, uint64) (trypema.Decision, error) {
			panic(broken)
		}},
		"PolicyOf": {Policies: plans(t), PolicyOf: func(context.Context, string) string { panic(broken) }},
		"Failed": {Limiter: faulty{err: errors.New("gone")}, Rate: 10,
			Failed: func(context.Context, string, error) error {
				panic(broken)
			}},
	}
}

// What panics on a server is an error of the call: gRPC would let it end the process. On a client it reaches
// the caller.
func TestPanics(t *testing.T) {
	for name, o := range brokenOptions(t) {
		said := new(log)
		o.Logger = said.logger()
		for call, err := range each(t, limit(t, o)) {
			if tells(t, err); status.Code(err) != codes.Internal {
				t.Errorf("%s, %s: %v", name, call, err)
			}
		}
		if !strings.Contains(said.String(), "panicked") || strings.Count(said.String(), "\n") != 1 {
			t.Errorf("%s: the log says %q", name, said)
		}
		o.Shadow = true
		for call, err := range each(t, limit(t, o)) {
			if err != nil && name != "Failed" {
				t.Errorf("in shadow, %s, %s: %v", name, call, err)
			}
		}
		o.Shadow = false
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the caller of a client did not see the panic", name)
				}
			}()
			_ = check(t.Context(), dial(t, nil, limit(t, o)))
		}()
	}
}

// The same for each message of a stream. The second call of a function is that for the first message.
func TestPanicsOfMessages(t *testing.T) {
	said := new(log)
	calls := 0
	cost := func(context.Context, string) uint64 {
		if calls++; calls == 2 {
			panic("broken, with hunter2")
		}
		return 1
	}
	o := grpclimit.Options{Limiter: limiter(t), Rate: 10, Messages: true, Cost: cost, Logger: said.logger()}
	s := newStreams(t, limit(t, o), nil, drain(make(chan error, 1)))
	stream := s.open(t.Context(), both)
	if err := stream.SendMsg(message); err != nil {
		t.Fatal(err)
	}
	err := receive(stream)
	if tells(t, err); status.Code(err) != codes.Internal || !strings.Contains(said.String(), "panicked") {
		t.Errorf("%v; the log says %q", err, said)
	}
	s.dropped()
}

// Rates and names that would fail each call, or break its details, are refused.
func TestOptionsThatFailLater(t *testing.T) {
	l := limiter(t)
	for name, o := range map[string]grpclimit.Options{
		"an infinite rate":                      {Limiter: l, Rate: trypema.Rate(math.Inf(1))},
		"NaN":                                   {Limiter: l, Rate: trypema.Per(1, 0)},
		"a rate that is too small for a window": {Limiter: l, Rate: trypema.PerHour(1)},
		"a nil pointer":                         {Limiter: (*faulty)(nil), Rate: 1},
		"a name that is not UTF-8":              {Limiter: l, Rate: 1, Name: "caf\xe9"},
		"a name with a blank":                   {Limiter: l, Rate: 1, Name: "free "},
	} {
		if _, err := grpclimit.New(o); !errors.Is(err, trypema.ErrInvalidOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k, ok := grpclimit.Combine(grpclimit.ByMethod(), nil)(t.Context(), "/a/b"); ok {
		t.Errorf("a key of nothing: %q", k)
	}
}
