package grpclimit_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/leak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

func limiter(t testing.TB) trypema.Limiter {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{Window: time.Minute})
	return limits.Absolute()
}

func limit(t testing.TB, o grpclimit.Options) *grpclimit.Limit {
	t.Helper()
	l, err := grpclimit.New(o)
	must.OK(t, err)
	return l
}

// dial returns a client of a real server, the health service, with interceptors on either side, or none.
func dial(t testing.TB, server, client *grpclimit.Limit) healthpb.HealthClient {
	t.Helper()
	return healthpb.NewHealthClient(serve(t, server, client, func(s *grpc.Server) {
		healthpb.RegisterHealthServer(s, health.NewServer())
	}))
}

// serve serves on a loopback port until t ends, with interceptors on either side, or none, and returns a
// connection.
func serve(t testing.TB, server, client *grpclimit.Limit, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must.OK(t, err)
	var on []grpc.ServerOption
	if server != nil {
		on = append(on, grpc.ChainUnaryInterceptor(server.UnaryServer()),
			grpc.ChainStreamInterceptor(server.StreamServer()))
	}
	s := grpc.NewServer(on...)
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it was stopped before it began
			t.Error(err)
		}
	})
	var by []grpc.DialOption
	if client != nil {
		by = append(by, grpc.WithChainUnaryInterceptor(client.UnaryClient()),
			grpc.WithChainStreamInterceptor(client.StreamClient()))
	}
	return connect(t, listener.Addr().String(), by...)
}

// connect returns a connection that is closed when t ends.
func connect(t testing.TB, target string, by ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	by = append(by, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(target, by...)
	must.OK(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// denial returns the details of an error that is a denial.
func denial(t testing.TB, err error) (retry time.Duration, subject string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != codes.ResourceExhausted {
		t.Fatalf("%v", err)
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = d.RetryDelay.AsDuration()
		case *errdetails.QuotaFailure:
			subject = d.Violations[0].Subject
		}
	}
	return retry, subject
}

func check(ctx context.Context, c healthpb.HealthClient) error {
	_, err := c.Check(ctx, new(healthpb.HealthCheckRequest))
	return err
}

// watch opens a stream and reads its first message.
func watch(ctx context.Context, c healthpb.HealthClient) error {
	stream, err := c.Watch(ctx, new(healthpb.HealthCheckRequest))
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func TestBothSides(t *testing.T) {
	for name, sides := range map[string]func(l *grpclimit.Limit) (server, client *grpclimit.Limit){
		"server": func(l *grpclimit.Limit) (server, client *grpclimit.Limit) { return l, nil },
		"client": func(l *grpclimit.Limit) (server, client *grpclimit.Limit) { return nil, l },
	} {
		for kind, call := range map[string]func(context.Context, healthpb.HealthClient) error{
			"unary": check, "stream": watch,
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				server, client := sides(limit(t, grpclimit.Options{
					Limiter: limiter(t), Rate: trypema.PerMinute(2), Name: "two",
				}))
				c := dial(t, server, client)
				for range 2 {
					must.OK(t, call(ctx, c))
				}
				retry, subject := denial(t, call(ctx, c))
				if retry < 50*time.Second || retry > time.Minute || subject != "two" {
					t.Errorf("retry in %v, subject %q", retry, subject)
				}
			})
		}
	}
}

func TestOptions(t *testing.T) {
	ctx := t.Context()
	seen := 0
	o := grpclimit.Options{
		Limiter: limiter(t), RateOf: func(_ context.Context, method string) trypema.Rate {
			if method != healthpb.Health_Check_FullMethodName {
				t.Errorf("method %s", method)
			}
			return trypema.PerMinute(10)
		},
		Cost: func(context.Context, string) uint64 { return 8 },
		Seen: func(context.Context, string, trypema.Decision, error) { seen++ },
	}
	c := dial(t, limit(t, o), nil)
	must.Report(t, check(ctx, c))
	denial(t, check(ctx, c))
	o.Shadow = true
	if err := check(ctx, dial(t, limit(t, o), nil)); err != nil || seen != 3 {
		t.Errorf("in shadow: %v, seen %d", err, seen)
	}
	o.Shadow, o.Skip = false, func(context.Context, string) bool { return true }
	if err := check(ctx, dial(t, limit(t, o), nil)); err != nil || seen != 3 {
		t.Errorf("skipped: %v, seen %d", err, seen)
	}
	o.Skip, o.Cost = nil, func(context.Context, string) uint64 { return 11 }
	if retry, subject := denial(t, check(ctx, dial(t, limit(t, o), nil))); retry != 0 || subject != "default" {
		t.Errorf("what never fits: retry in %v, %q", retry, subject)
	}
	o.RateOf = func(context.Context, string) trypema.Rate { return -1 }
	if err := check(ctx, dial(t, limit(t, o), nil)); status.Code(err) != codes.Internal {
		t.Errorf("a wrong rate is no pass: %v", err)
	}
}

// TestSeveralLimits: the details name the limit that refused, over a real connection.
func TestSeveralLimits(t *testing.T) {
	limits := fixture.Local(t, trypema.Options{})
	both := fixture.Bind(t, limits, trypema.StrategyAbsolute,
		trypema.Limit{Name: "second", Rate: 10, Window: time.Second},
		trypema.Limit{Name: "hour", Rate: trypema.PerHour(2), Window: time.Hour})
	c := dial(t, limit(t, grpclimit.Options{
		Decide: func(ctx context.Context, _, key string, cost uint64) (trypema.Decision, error) {
			return both.AllowN(ctx, key, cost)
		},
		Cost: func(context.Context, string) uint64 { return 2 },
	}), nil)
	must.OK(t, check(t.Context(), c))
	retry, subject := denial(t, check(t.Context(), c))
	if subject != "hour" || retry < 59*time.Minute {
		t.Errorf("refused by %q, to come again after %v", subject, retry)
	}
}

// TestPatientClient waits for its turn, and not at all if its deadline is before that.
func TestPatientClient(t *testing.T) {
	conn := connect(t, "passthrough:///example.com")
	synctest.Test(t, func(t *testing.T) {
		client := limit(t,
			grpclimit.Options{Limiter: limiter(t), Rate: trypema.PerMinute(1), MaxWait: time.Hour}).UnaryClient()
		call := func(ctx context.Context) error {
			return client(ctx, "/a/b", nil, nil,
				conn, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					return nil
				})
		}
		began := time.Now()
		for range 3 {
			must.OK(t, call(t.Context()))
		}
		if took := time.Since(began); took < 2*time.Minute || took > 2*time.Minute+2*time.Second {
			t.Errorf("three calls at one a minute took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		began = time.Now()
		denial(t, call(ctx))
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited %v in vain", took)
		}
	})
}

// fakeStream is a stream of ever the same messages.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s fakeStream) Context() context.Context { return s.ctx }
func (s fakeStream) RecvMsg(any) error        { return nil }

func TestMessages(t *testing.T) {
	l := limit(t, grpclimit.Options{Limiter: limiter(t), Rate: trypema.PerMinute(3), Messages: true})
	received := 0
	err := l.StreamServer()(nil, fakeStream{ctx: t.Context()},
		&grpc.StreamServerInfo{FullMethod: "/a/b",
			IsClientStream: true}, func(_ any, stream grpc.ServerStream) error {
			for {
				if err := stream.RecvMsg(nil); err != nil {
					return err
				}
				received++
			}
		})
	if denial(t, err); received != 2 { // and the call itself
		t.Errorf("%d received", received)
	}
}

func TestKeys(t *testing.T) {
	at := func(addr net.Addr) context.Context { return peer.NewContext(t.Context(), &peer.Peer{Addr: addr}) }
	tcp := func(ip string) context.Context { return at(&net.TCPAddr{IP: net.ParseIP(ip), Port: 80}) }
	token := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "secret"))
	for _, tt := range []struct {
		name string
		key  grpclimit.KeyFunc
		ctx  context.Context
		want string
	}{
		{"peer", grpclimit.ByPeer(), tcp("192.0.2.7"), "192.0.2.7"},
		{"IPv6 peer", grpclimit.ByPeer(), tcp("2001:db8:1:2:3::4"), "2001:db8:1:2::/64"},
		{"peer without an address", grpclimit.ByPeer(), at(&net.UnixAddr{Name: "@"}), "none"},
		{"no peer", grpclimit.ByPeer(), t.Context(), "none"},
		{"method", grpclimit.ByMethod(), t.Context(), "/a/b"},
		{"metadata", grpclimit.ByMetadata("Authorization"), token, "2bb80d537b1da3e38bd30361aa855686"},
		{"no metadata", grpclimit.ByMetadata("x-other"), token, "none"},
		{"combined", grpclimit.Combine(grpclimit.ByPeer(), grpclimit.ByMethod()), tcp("192.0.2.7"),
			"9:192.0.2.74:/a/b"},
		{"combined, one missing", grpclimit.Combine(grpclimit.ByPeer(), grpclimit.ByMethod()), t.Context(), "none"},
	} {
		got, ok := tt.key(tt.ctx, "/a/b")
		if !ok {
			got = "none"
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	l := limiter(t)
	byRate := func(context.Context, string) trypema.Rate { return 1 }
	for _, tt := range []struct {
		o    grpclimit.Options
		says string
	}{
		{grpclimit.Options{Rate: 1}, "Limiter is nil"},
		{grpclimit.Options{Limiter: l}, "Rate is 0 and RateOf is nil"},
		{grpclimit.Options{Limiter: l, Rate: 1, RateOf: byRate}, "Rate is 1 and RateOf is set"},
		{grpclimit.Options{Limiter: l, Rate: -1}, "Rate is -1"},
		{grpclimit.Options{Limiter: l, Rate: 1, MaxWait: -1}, "MaxWait is -1ns"},
	} {
		if _, err := grpclimit.New(tt.o); !errors.Is(err, trypema.ErrInvalidOptions) ||
			!strings.Contains(err.Error(), "grpclimit.Options."+tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
}
