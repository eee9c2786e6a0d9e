package serving

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trypema/trypema/internal/bench/leak"
	"github.com/trypema/trypema/internal/bench/peer"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/internal/proof/must"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestReadClients(t *testing.T) {
	const heads = `"test","rps","avg_latency_ms","min_latency_ms",` +
		`"p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"
	const ok = "Requests/sec:\t2783.53\n  95 % in 38.87 ms\n  99 % in 55.39 ms\n  [OK]   2824 responses\n"
	tests := []struct {
		name string
		read func([]byte) (turn, error)
		out  string
		want turn
		err  string
	}{
		{"redis-benchmark", readRedisBenchmark,
			heads + `"CL.THROTTLE k 1","274348.44","2.685","0.024","1.535","9.263","31.5","56.959"`,
			turn{274348.44, 31500 * time.Microsecond}, ""},
		{"after a warning", readRedisBenchmark,
			"WARNING: no CONFIG\n" + heads + `"x","10","1","1","1","1","2","3"`,
			turn{10, 2 * time.Millisecond}, ""},
		{"an error", readRedisBenchmark, "Error from server: ERR unknown command", turn{}, "ERR unknown command"},
		{"ghz", readGHZ, "Summary:\n  " + ok, turn{2783.53, 55390 * time.Microsecond}, ""},
		{"ghz, microseconds", readGHZ, strings.Replace(ok, "99 % in 55.39 ms", "99 % in 812.25 µs", 1),
			turn{2783.53, 812250 * time.Nanosecond}, ""},
		{"ghz, some failed", readGHZ, ok + "  [Unavailable]   3 responses\n", turn{}, "3 answers are Unavailable"},
		{"ghz, nothing", readGHZ, "", turn{}, "ghz prints"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.read([]byte(tt.out))
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("%v, want %q", err, tt.err)
			}
			if err == nil && got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestTurns: servers take turns in an order that changes, ratios are those of one round, and what is missing
// is named.
func TestTurns(t *testing.T) {
	var order []string
	server := func(name string, peer bool) launcher {
		return func(context.Context, *stage) (*contender, error) {
			return &contender{name: name, peer: peer,
				ends: []func(){func() { order = append(order, "stop "+name) }}}, nil
		}
	}
	missing := func(context.Context, *stage) (*contender, error) {
		return nil, &peer.MissingError{Name: "other", Why: "it is not on PATH"}
	}
	speed := map[string][]float64{"hybrid": {0, 300, 200, 600}, "strict": {0, 150, 100, 150},
		"peer": {0, 100, 100, 100}}
	c := measured{
		name: "case", title: "A case", client: "a client", asked: "≥ 1",
		servers: []launcher{server("hybrid", false), server("strict", false), missing, server("peer", true)},
		turn: func(_ context.Context, _ *stage, one *contender, _ time.Duration) (turn, error) {
			order = append(order, one.name)
			rate := speed[one.name][0]
			speed[one.name] = speed[one.name][1:]
			return turn{rate, time.Millisecond}, nil
		},
	}
	s := &stage{command: new(Command), bar: screen.NewBar(io.Discard), missing: make(map[string]string)}
	r, err := s.run(t.Context(), c, 3, time.Second, func(float64) {})
	must.OK(t, err)
	want := []string{
		"hybrid", "strict", "peer", // to warm up
		"hybrid", "strict", "peer", "strict", "peer", "hybrid", "peer", "hybrid", "strict",
		"stop hybrid", "stop strict", "stop peer",
	}
	if !slices.Equal(order, want) {
		t.Errorf("turns %q, want %q", order, want)
	}
	if len(r.Rows) != 3 || r.Rows[0].Ratios != nil || r.Rows[0].PerSecond != 300 || r.Rows[0].Least != 200 ||
		r.Rows[0].Most != 600 {
		t.Fatalf("%+v", r.Rows)
	}
	if got := r.Rows[2].Ratios; !slices.Equal(got, []ratio{{"hybrid", 3, 2, 6}, {"strict", 1.5, 1, 1.5}}) {
		t.Errorf("ratios %+v", got)
	}
	if s.missing["other"] != "it is not on PATH" {
		t.Errorf("missing: %v", s.missing)
	}
	c.servers = []launcher{missing}
	none, err := s.run(t.Context(), c, 3, time.Second, func(float64) {})
	if err != nil || none.LeftOut == "" {
		t.Errorf("without the first server: %+v, %v", none, err)
	}
	d := document{Machine: "m", Rounds: 3, Seconds: 1,
		Cases:   []result{*r, *none, {Title: "B", Found: "1 KiB", Asked: "≤ 2"}},
		LeftOut: []string{"other: it is not on PATH"}}
	var b bytes.Buffer
	must.OK(t, d.markdown(&b))
	for _, want := range []string{
		"### A case\n\nBy a client. Asked: ≥ 1.\n\n| server | requests/s | ratio | p99 |\n",
		"| hybrid | 300 (200…600) | – | 1ms |\n",
		"| peer | 100 (100…100) | hybrid: 3.00 (2.00…6.00)<br>strict: 1.50 (1.00…1.50) | 1ms |\n",
		"Not measured: other is missing.\n", "### B\n\n1 KiB. Asked: ≤ 2.\n", "- other: it is not on PATH\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

func TestWebClient(t *testing.T) {
	var asked, wrong atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n := asked.Add(1)
		if r.URL.Path != "/p" || !strings.HasPrefix(string(body), "key ") || wrong.Load() > 0 && n > 100 {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprint(w, "answer")
	}))
	defer server.Close()
	c := &contender{address: strings.TrimPrefix(server.URL, "http://"), path: "/p", request: "key %d"}
	got, err := webClient(t.Context(), nil, c, 50*time.Millisecond)
	if err != nil || got.PerSecond <= 0 || got.P99 <= 0 || asked.Load() < callers {
		t.Fatalf("%+v of %d requests, %v", got, asked.Load(), err)
	}
	wrong.Store(1)
	asked.Store(0)
	if _, err := webClient(t.Context(), nil, c, time.Minute); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("wrong answers: %v", err)
	}
}

// TestAnswers: a server that answers a command with anything but a decision is noticed, as redis-benchmark
// would not.
func TestAnswers(t *testing.T) {
	for answer, ok := range map[string]bool{
		"*5\r\n:0\r\n:100\r\n:99\r\n:-1\r\n:60\r\n": true, "-ERR unknown command\r\n": false,
		"*5\r\n-ERR\r\n:1\r\n:1\r\n:1\r\n:1\r\n": false, "*2\r\n:0\r\n:1\r\n": false,
	} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		must.OK(t, err)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}()
		c := &contender{address: l.Addr().String(), request: "CL.THROTTLE user:__rand_int__ 99 100 60"}
		if err := c.answers(t.Context()); (err == nil) != ok {
			t.Errorf("%q: %v", answer, err)
		}
		<-ended
		_ = l.Close()
	}
}

func TestBareServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address, err := free(ctx)
	must.OK(t, err)
	ended := make(chan error, 1)
	go func() { ended <- (&Bare{address}).Run(ctx, screen.Streams{}) }()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must.OK(t, err)
	r, err := pb.NewRateLimitServiceClient(c).ShouldRateLimit(ctx, new(pb.RateLimitRequest), grpc.WaitForReady(true))
	if err != nil || r.GetOverallCode() != pb.RateLimitResponse_OK {
		t.Errorf("%v, %v", r, err)
	}
	_ = c.Close()
	cancel()
	must.Report(t, <-ended)
	if err := (&Bare{"nowhere"}).Run(t.Context(), screen.Streams{}); err == nil {
		t.Error("an address without a port is accepted")
	}
}

// TestProtocolSet: the protocol is complete, so that ghz needs no reflection.
func TestProtocolSet(t *testing.T) {
	if n := len(protocolSet()); n < 10_000 {
		t.Errorf("%d bytes", n)
	}
}
