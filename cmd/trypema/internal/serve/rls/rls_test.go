package rls

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

const config = `
domain: d
descriptors:
  - {key: ip, rate_limit: {unit: minute, requests_per_unit: 3, name: per address}, metadata: {plan: {name: free}}}
  - {key: user, rate_limit: {unit: week, requests_per_unit: 5}, metadata: {plan: {tier: 1, name: other}}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: never, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: tried, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 0}}
`

// start returns a service on Local. It is ended with the test.
func start(t testing.TB, o Options) *Service {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	o.Engine = engine.New(limits, engine.Options{})
	o.Logger = slog.New(slog.DiscardHandler)
	set, err := rules.Compile([]rules.File{{Name: "config.yaml", Data: []byte(config)}}, rules.Options{})
	if err == nil {
		err = o.Engine.Use(set)
	}
	must.OK(t, err)
	return New(o)
}

// connect serves in memory, and returns a connection and the server.
func connect(t testing.TB, s *Service) (*grpc.ClientConn, *Server) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	server := NewServer(s, time.Hour)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	c, err := grpc.NewClient("passthrough:pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	must.OK(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		server.GracefulStop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return c, server
}

// request makes one from the JSON of a RateLimitRequest.
func request(t testing.TB, text string) *pb.RateLimitRequest {
	t.Helper()
	r := new(pb.RateLimitRequest)
	must.OK(t, protojson.Unmarshal([]byte(text), r))
	return r
}

const ip = `{"domain":"d","descriptors":[{"entries":[{"key":"ip","value":"a"}]}]}`

func TestShouldRateLimit(t *testing.T) {
	tests := []struct{ name, request, want string }{
		{
			"one descriptor", ip,
			`{"overallCode":"OK","statuses":[{"code":"OK","currentLimit":{"name":"per address","requestsPerUnit":3,"unit":"MINUTE"},"limitRemaining":2,"durationUntilReset":"60s"}]}`,
		},
		{
			"several", `{"domain":"d","hitsAddend":4,"descriptors":[{"entries":[{"key":"ip","value":"b"}]},{"entries":[{"key":"user","value":"b"}]},{"entries":[{"key":"none"}]},{"entries":[{"key":"free"}]}]}`,
			`{"overallCode":"OVER_LIMIT","statuses":[{"code":"OVER_LIMIT","currentLimit":{"name":"per address","requestsPerUnit":3,"unit":"MINUTE"},"limitRemaining":3},
			 {"code":"OK","currentLimit":{"requestsPerUnit":5,"unit":"WEEK"},"limitRemaining":5,"durationUntilReset":"0s"},{"code":"OK"},{"code":"OK","limitRemaining":4294967295}]}`,
		},
		{
			"always over", `{"domain":"d","descriptors":[{"entries":[{"key":"never","value":"a"}]}]}`,
			`{"overallCode":"OVER_LIMIT","statuses":[{"code":"OVER_LIMIT","currentLimit":{"unit":"HOUR"}}]}`,
		},
		{
			"shadow", `{"domain":"d","descriptors":[{"entries":[{"key":"tried","value":"a"}]}]}`,
			`{"overallCode":"OK","statuses":[{"code":"OK","currentLimit":{"unit":"MINUTE"}}]}`,
		},
		{
			"limit of the request", `{"domain":"d","descriptors":[{"entries":[{"key":"x","value":"y"}],"limit":{"requestsPerUnit":7,"unit":"DAY"},"hitsAddend":"2"}]}`,
			`{"overallCode":"OK","statuses":[{"code":"OK","currentLimit":{"requestsPerUnit":7,"unit":"DAY"},"limitRemaining":5,"durationUntilReset":"86400s"}]}`,
		},
		{
			"what is given back", `{"domain":"d","descriptors":[{"entries":[{"key":"ip","value":"a"}],"hitsAddend":"2"},{"entries":[{"key":"ip","value":"a"}],"hitsAddend":"1","isNegativeHits":true}]}`,
			`{"overallCode":"OK","statuses":[{"code":"OK","currentLimit":{"name":"per address","requestsPerUnit":3,"unit":"MINUTE"},"limitRemaining":1,"durationUntilReset":"60s"},
			 {"code":"OK","currentLimit":{"name":"per address","requestsPerUnit":3,"unit":"MINUTE"},"limitRemaining":2,"durationUntilReset":"60s"}]}`,
		},
		{
			"unknown domain",
			`{"domain":"other","descriptors":[{"entries":[{"key":"ip"}]}]}`,
			`{"overallCode":"OK","statuses":[{"code":"OK"}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := start(t, Options{}).ShouldRateLimit(t.Context(), request(t, tt.request))
				must.OK(t, err)
				want := new(pb.RateLimitResponse)
				must.OK(t, protojson.Unmarshal([]byte(tt.want), want))
				if !proto.Equal(got, want) {
					t.Errorf("\n got %s\nwant %s", protojson.Format(got), protojson.Format(want))
				}
			})
		})
	}
}

func TestWrongRequests(t *testing.T) {
	s := start(t, Options{})
	tests := []struct{ request, want string }{
		{`{"descriptors":[{}]}`, "rate limit domain must not be empty"},
		{`{"domain":"d"}`, "rate limit descriptor list must not be empty"},
		{
			`{"domain":"d","descriptors":[{"limit":{"requestsPerUnit":1}}]}`,
			"descriptor 1: limit: unit is unknown",
		},
	}
	for _, tt := range tests {
		_, err := s.ShouldRateLimit(t.Context(), request(t, tt.request))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.request, err)
		}
	}
	r := &pb.RateLimitRequest{Domain: "d", Descriptors: []*ratelimit.RateLimitDescriptor{
		{Limit: &ratelimit.RateLimitDescriptor_RateLimitOverride{Unit: typev3.RateLimitUnit(-1)}},
	}}
	if _, err := s.ShouldRateLimit(t.Context(), r); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a negative unit: %v", err)
	}
	none := New(Options{Engine: engine.New(nil, engine.Options{}), Logger: slog.New(slog.DiscardHandler)})
	if _, err := none.ShouldRateLimit(t.Context(), request(t, ip)); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "no rate limit configuration loaded") {
		t.Errorf("without a configuration: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, Options{Headers: true})
		ask := func(text string) (all []string) {
			got, err := s.ShouldRateLimit(t.Context(), request(t, text))
			must.OK(t, err)
			for _, h := range got.ResponseHeadersToAdd {
				all = append(all, h.Key+": "+h.Value)
			}
			return all
		}
		both := `{"domain":"d","descriptors":[{"entries":[{"key":"user","value":"a"}]},{"entries":[{"key":"ip","value":"a"}]}]}`
		want := []string{"RateLimit-Limit: 3", "RateLimit-Remaining: 2", "RateLimit-Reset: 60"}
		if got := ask(both); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		time.Sleep(500 * time.Millisecond)
		ask(strings.Replace(both, `"domain"`, `"hitsAddend":2,"domain"`, 1))
		time.Sleep(30 * time.Second)
		want = []string{"RateLimit-Limit: 3", "RateLimit-Remaining: 0", "RateLimit-Reset: 30"}
		if got := ask(both); !slices.Equal(got, want) { // the first has room again after 29.5 s
			t.Errorf("%v, want %v", got, want)
		}
		if got := ask(`{"domain":"d","descriptors":[{"entries":[{"key":"none"}]}]}`); got != nil {
			t.Errorf("without a limit: %v", got)
		}
	})
}

func TestMetadata(t *testing.T) {
	s := start(t, Options{Metadata: true})
	got, err := s.ShouldRateLimit(t.Context(), request(
		t,
		`{"domain":"d","hitsAddend":1,"descriptors":[{"entries":[{"key":"ip","value":"a"}]},{"entries":[{"key":"user","value":"b"}],"hitsAddend":"2"}]}`,
	))
	must.OK(t, err)
	want := `{"domain":"d","hitsAddend":1,"descriptors":[{"entries":["ip=a"]},{"entries":["user=b"],"hitsAddend":2}],"metadata":{"plan":{"name":"free","tier":1}}}`
	r := new(pb.RateLimitResponse)
	must.OK(t, protojson.Unmarshal([]byte(`{"dynamicMetadata":`+want+`}`), r))
	if !proto.Equal(got.DynamicMetadata, r.DynamicMetadata) {
		t.Errorf("%s", protojson.Format(got.DynamicMetadata))
	}
}

// TestServer: the service, health and reflection by gRPC.
func TestServer(t *testing.T) {
	c, server := connect(t, start(t, Options{}))
	client := pb.NewRateLimitServiceClient(c)
	for i, want := range []pb.RateLimitResponse_Code{1, 1, 1, 2} {
		got, err := client.ShouldRateLimit(t.Context(), request(t, ip))
		if err != nil || got.OverallCode != want {
			t.Fatalf("call %d: %v, %v", i+1, got, err)
		}
	}
	if _, err := client.ShouldRateLimit(t.Context(), new(pb.RateLimitRequest)); status.Code(
		err,
	) != codes.InvalidArgument {
		t.Errorf("an empty request: %v", err)
	}
	large := &pb.RateLimitRequest{Domain: strings.Repeat("d", maxMessage)}
	if _, err := client.ShouldRateLimit(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request: %v", err)
	}
	for _, serving := range []bool{false, true} {
		server.SetServing(serving)
		for _, name := range []string{"", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService"} {
			h, err := healthpb.NewHealthClient(c).
				Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || (h.Status == healthpb.HealthCheckResponse_SERVING) != serving {
				t.Errorf("health of %q: %v, %v, want serving %v", name, h, err, serving)
			}
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
	if err == nil {
		err = stream.Send(
			&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
			},
		)
	}
	must.OK(t, err)
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(answer.String(), "envoy.service.ratelimit.v3.RateLimitService") {
		t.Errorf("reflection: %v, %v", answer, err)
	}
	must.Report(t, stream.CloseSend())
}

func TestJSON(t *testing.T) {
	tests := []struct {
		body string
		code int
		want string
	}{
		{ip, 200, `"overallCode":"OK"`},
		{ip, 200, `"limitRemaining":1`},
		{ip, 200, `"overallCode":"OK"`},
		{ip, 429, `"overallCode":"OVER_LIMIT"`},
		{"", 400, "the body is no RateLimitRequest"},
		{"[]", 400, "the body is no RateLimitRequest"},
		{`{"domain":"d","more":1}`, 400, `unknown field "more"`},
		{`{"domain":"d"}`, 400, "rate limit descriptor list must not be empty"},
		{strings.Repeat(" ", maxMessage+1), 413, "too large"},
	}
	s := start(t, Options{})
	for i, tt := range tests {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("POST", "/json", strings.NewReader(tt.body)))
		if got := strings.ReplaceAll(strings.ReplaceAll(w.Body.String(), " ", ""), "\u00a0", ""); w.Code != tt.code ||
			!strings.Contains(got, strings.ReplaceAll(tt.want, " ", "")) {
			t.Errorf("request %d: %d %s, want %d %s", i+1, w.Code, w.Body, tt.code, tt.want)
		}
	}
}

// TestPanic: a fault of ours ends its call only.
func TestPanic(t *testing.T) {
	s := start(t, Options{})
	s.Engine = nil
	c, _ := connect(t, s)
	for range 2 {
		_, err := pb.NewRateLimitServiceClient(c).ShouldRateLimit(t.Context(), request(t, ip))
		if status.Code(err) != codes.Internal {
			t.Errorf("%v, want Internal", err)
		}
	}
}

// FuzzRequest: whatever a protobuf holds, it is judged or refused.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{ip, `{"domain":"d","descriptors":[{"limit":{"unit":"DAY"},"hitsAddend":"18446744073709551615"}]}`} {
		b, _ := proto.Marshal(request(f, text))
		f.Add(b)
	}
	s := start(f, Options{Headers: true, Metadata: true})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := new(pb.RateLimitRequest)
		if proto.Unmarshal(data, r) != nil {
			return
		}
		got, err := s.ShouldRateLimit(context.Background(), r)
		if err == nil && len(got.Statuses) != len(r.Descriptors) {
			t.Fatalf("%v: %v", r, got)
		}
		if code := status.Code(err); code != codes.OK && code != codes.InvalidArgument &&
			code != codes.Unavailable {
			t.Fatalf("%v: %v", r, err)
		}
	})
}

// bare answers OK without looking.
type bare struct {
	pb.UnimplementedRateLimitServiceServer
}

func (bare) ShouldRateLimit(context.Context, *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	return &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK}, nil
}

// TestAllocations: a decision about one descriptor allocates its response, its key, and little else. The race
// detector empties the pool of memory now and then.
func TestAllocations(t *testing.T) {
	s, r := start(t, Options{}), request(t, ip)
	n := testing.AllocsPerRun(100, func() {
		if _, err := s.ShouldRateLimit(context.Background(), r); err != nil {
			t.Error(err)
		}
	})
	if most := 5.; n > most { // 4 more than a server that answers without looking
		t.Errorf("%v allocations, want at most %v", n, most)
	}
}

// BenchmarkShouldRateLimit: one descriptor takes at most 1 µs and 4 allocations more than a server that
// answers without looking.
func BenchmarkShouldRateLimit(b *testing.B) {
	servers := []struct {
		name   string
		server pb.RateLimitServiceServer
	}{{"bare", bare{}}, {"serve", start(b, Options{})}}
	for _, s := range servers {
		b.Run(s.name, func(b *testing.B) {
			r := request(b, ip)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.server.ShouldRateLimit(context.Background(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkServer compares serve with a server that answers without looking, by gRPC on loopback.
func BenchmarkServer(b *testing.B) {
	for _, s := range []struct {
		name   string
		server pb.RateLimitServiceServer
	}{{"bare", bare{}}, {"serve", start(b, Options{})}} {
		b.Run(s.name, func(b *testing.B) {
			l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
			must.OK(b, err)
			server := grpc.NewServer()
			pb.RegisterRateLimitServiceServer(server, s.server)
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(l) }()
			c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			must.OK(b, err)
			client := pb.NewRateLimitServiceClient(c)
			b.SetParallelism(25)
			b.RunParallel(func(p *testing.PB) {
				r := request(b, ip)
				for p.Next() {
					if _, err := client.ShouldRateLimit(context.Background(), r); err != nil {
						b.Error(err)
						return
					}
				}
			})
			_ = c.Close()
			server.Stop()
			if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				b.Error(err)
			}
		})
	}
}
