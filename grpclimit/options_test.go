package grpclimit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
)

func local(t testing.TB) *trypema.Local {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	return limits
}

func bind(t testing.TB, limits ...trypema.Limit) *trypema.Bound {
	t.Helper()
	b := fixture.Bind(t, local(t), trypema.StrategyAbsolute, limits...)
	return b
}

// plans are a policy that admits two calls, one that is in shadow, and one that keeps nothing.
func plans(t testing.TB) *trypema.Policies {
	t.Helper()
	p := fixture.Policies(t, local(t),
		trypema.Policy{Name: "free", Cost: 3, Limits: []trypema.Limit{trypema.AtMost(6, time.Minute).Named("six")}},
		trypema.Policy{Name: "shadow", Shadow: true, Limits: []trypema.Limit{trypema.AtMost(0, time.Minute)}},
		trypema.Policy{Name: "none", Limits: []trypema.Limit{trypema.NoLimit}})
	return p
}

// Who decides is said once, and so that it can.
func TestWhoDecides(t *testing.T) {
	b, p, l := bind(t, trypema.AtMost(3, time.Minute)), plans(t), limiter(t)
	name := func(context.Context, string) string { return "free" }
	type options = grpclimit.Options
	for _, tt := range []struct {
		o    options
		says string // "" if all is well
	}{
		{options{}, "Limiter is nil, and so are Bound, Policies and Decide"},
		{options{Bound: new(trypema.Bound)}, "Bound has no limits"},
		{options{Bound: b, Limiter: l, Rate: 1}, "Bound is set, and"},
		{options{Bound: b, Policies: p, PolicyOf: name}, "Bound is set, and"},
		{options{Policies: p}, "PolicyOf is nil"},
		{options{Bound: b, PolicyOf: name}, "PolicyOf is set, but not Policies"},
		{options{Bound: b, Keyless: 3}, "Keyless is 3"},
		{options{Bound: b}, ""},
		{options{Policies: p, PolicyOf: name}, ""},
	} {
		_, err := grpclimit.New(tt.o)
		if wrong := errors.Is(err, trypema.ErrInvalidOptions) &&
			strings.Contains(err.Error(), "grpclimit.Options."+tt.says) &&
			strings.Contains(err.Error(), "must"); (tt.says == "") != (err == nil) || err != nil && !wrong {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
}

// ended is how a unary call and a stream end on a server, and what their handlers know of the decision.
func ended(ctx context.Context, t *testing.T, o grpclimit.Options) []string {
	t.Helper()
	l := limit(t, o)
	knows := "nothing"
	look := func(ctx context.Context) {
		if d, ok := trypema.FromContext(ctx); ok {
			knows = fmt.Sprint(d.Outcome, " ", d.Shadowed)
		}
	}
	var all []string
	_, err := l.UnaryServer()(ctx, nil,
		&grpc.UnaryServerInfo{FullMethod: "/a/b"}, func(ctx context.Context, _ any) (any, error) {
			look(ctx)
			return nil, nil
		})
	all = append(all, fmt.Sprint(status.Code(err), ", ", knows))
	for _, messages := range []bool{false, true} {
		o.Messages = messages
		knows = "nothing"
		err = limit(t, o).StreamServer()(nil, fakeStream{ctx: ctx},
			&grpc.StreamServerInfo{FullMethod: "/a/b", IsClientStream: true},
			func(_ any, stream grpc.ServerStream) error {
				look(stream.Context())
				return nil
			})
		all = append(all, fmt.Sprint(status.Code(err), ", ", knows))
	}
	return all
}

// A policy is found for each call, and costs what it says; one in shadow lets all pass; handlers know the
// decision; Denied and Keyless have their say.
func TestPolicyOf(t *testing.T) {
	all := func(s string) []string { return []string{s, s, s} }
	for name, tt := range map[string]struct {
		plan   string
		change func(*grpclimit.Options)
		want   []string
	}{
		"by its cost": {"free", nil, []string{"OK, allowed false", "OK, allowed false", "ResourceExhausted, nothing"}},
		"at another cost": {
			"free", func(o *grpclimit.Options) { o.Cost = func(context.Context, string) uint64 { return 2 } },
			all("OK, allowed false"),
		},
		"at no cost": {
			"free", func(o *grpclimit.Options) { o.Cost = func(context.Context, string) uint64 { return 0 } },
			all("OK, allowed false"),
		},
		"a policy in shadow": {"shadow", nil, all("OK, allowed true")},
		"no limit":           {"none", nil, all("OK, allowed false")},
		"unknown":            {"other", nil, all("Internal, nothing")},
		"unknown, in shadow": {"other", func(o *grpclimit.Options) { o.Shadow = true }, all("OK, nothing")},
		"skipped": {"other", func(o *grpclimit.Options) {
			o.Skip = func(context.Context, string) bool { return true }
		}, all("OK, nothing")},
		"denied in its own way": {"free", func(o *grpclimit.Options) {
			o.Cost = func(context.Context, string) uint64 { return 7 }
			o.Denied = func(_ context.Context, method string, d trypema.Decision) error {
				if method != "/a/b" || d.RefusedBy != "six" {
					t.Errorf("Denied got %s, %+v", method, d)
				}
				return status.Error(codes.Aborted, "no")
			}
		}, all("Aborted, nothing")},
		"denied by default": {"free", func(o *grpclimit.Options) {
			o.Cost = func(context.Context, string) uint64 { return 7 }
			o.Denied = func(context.Context, string, trypema.Decision) error { return nil }
		}, all("ResourceExhausted, nothing")},
		"keyless": {"free", func(o *grpclimit.Options) {
			o.Key, o.Keyless = grpclimit.ByMetadata("a"), grpclimit.KeylessDeny
		}, all("InvalidArgument, nothing")},
		"keyless, in shadow": {"none", func(o *grpclimit.Options) {
			o.Key, o.Keyless, o.Shadow = grpclimit.ByMetadata("a"), grpclimit.KeylessDeny, true
		}, all("OK, allowed false")},
		"keyless, passing": {"free", func(o *grpclimit.Options) {
			o.Key, o.Keyless = grpclimit.ByMetadata("a"), grpclimit.KeylessPass
		}, all("OK, nothing")},
	} {
		o := grpclimit.Options{
			Policies: plans(t), PolicyOf: func(context.Context, string) string { return tt.plan },
			Logger: new(log).logger(),
		}
		if tt.change != nil {
			tt.change(&o)
		}
		if got := ended(t.Context(), t, o); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// Calls of a client that wait are made in the order in which they came, and know the decision.
func TestClientTurns(t *testing.T) {
	conn := connect(t, "passthrough:///example.com")
	synctest.Test(t, func(t *testing.T) {
		client := limit(t, grpclimit.Options{Bound: bind(t, trypema.AtMost(1, time.Second)),
			MaxWait: time.Minute}).UnaryClient()
		var mu sync.Mutex
		var order, want []string
		began := time.Now()
		call := func(ctx context.Context, n int) error {
			return client(ctx, "/a/b", nil, nil,
				conn, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
					mu.Lock()
					defer mu.Unlock()
					_, ok := trypema.FromContext(ctx)
					order = append(order, fmt.Sprint(n, " at ", time.Since(began), " ", ok))
					return nil
				})
		}
		for i := range 20 {
			want = append(want, fmt.Sprint(i, " at ", time.Duration(i)*time.Second, " true"))
			go func() {
				must.Report(t, call(t.Context(), i))
			}()
			synctest.Wait() // it has its turn
		}
		ctx, cancel := context.WithTimeout(t.Context(), 19*time.Second)
		defer cancel()
		if retry, _ := denial(t, call(ctx, 20)); retry != 20*time.Second || time.Since(began) != 0 {
			t.Errorf("beyond the deadline: after %v, to retry in %v", time.Since(began), retry)
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(order, want) {
			t.Errorf("%q, want %q", order, want)
		}
	})
}

// KeyOf is the key by which a call is limited, and a network is skipped by the address of the peer.
func TestKeyOfAndNetworks(t *testing.T) {
	at := func(ip string) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 80}})
	}
	b := bind(t, trypema.AtMost(10, time.Minute))
	bits, err := grpclimit.ByPeerNetwork(48)
	must.OK(t, err)
	token := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "secret"))
	for _, tt := range []struct {
		o    grpclimit.Options
		ctx  context.Context
		want string
	}{
		{grpclimit.Options{}, at("2001:db8:1:2:3::4"), "2001:db8:1:2::/64"},
		{grpclimit.Options{Key: bits}, at("2001:db8:1:2:3::4"), "2001:db8:1::/48"},
		{grpclimit.Options{Key: bits}, at("192.0.2.7"), "192.0.2.7"},
		{grpclimit.Options{Key: grpclimit.ByMetadata("authorization")}, token, "2bb80d537b1da3e38bd30361aa855686"},
		{grpclimit.Options{}, t.Context(), "\x00keyless"},
		{grpclimit.Options{Keyless: grpclimit.KeylessDeny}, t.Context(), ""},
	} {
		tt.o.Bound = b
		key, ok := limit(t, tt.o).KeyOf(tt.ctx, "/a/b")
		if key != tt.want || ok != (key != "") {
			t.Errorf("%q, %v, want %q", key, ok, tt.want)
		}
	}
	for _, wrong := range []int{-1, 0, 129} {
		if _, err := grpclimit.ByPeerNetwork(wrong); !errors.Is(err, trypema.ErrInvalidOptions) {
			t.Errorf("%d bits: %v", wrong, err)
		}
	}
	skip, err := grpclimit.SkipNetworks("10.0.0.0/8", "2001:db8::1")
	must.OK(t, err)
	for ip, want := range map[string]bool{"10.1.2.3": true, "192.0.2.7": false, "2001:db8::1": true,
		"2001:db8::2": false} {
		if skip(at(ip), "/a/b") != want {
			t.Errorf("%s is skipped: %v", ip, !want)
		}
	}
	if skip(t.Context(), "/a/b") {
		t.Error("a call without a peer is skipped")
	}
	if _, err := grpclimit.SkipNetworks("0.0.0.0/0"); !errors.Is(err, trypema.ErrInvalidOptions) {
		t.Error(err)
	}
}
