package onserve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

// vectors are calls of CL.THROTTLE and their answers, which are those of redis-cell but where a burst comes
// back.
var vectors = [][2]string{
	{"CL.THROTTLE zero 0 1 3600", "0 1 0 -1 3600"},
	{"CL.THROTTLE zero 0 1 3600", "1 1 0 3600 3600"},
	{"CL.THROTTLE user123 15 30 3600", "0 16 15 -1 1920"}, // redis-cell: all is free after 120
	{"CL.THROTTLE five 4 1 3600 6", "1 5 5 -1 0"},
	{"CL.THROTTLE five 4 1 3600 5", "0 5 0 -1 18000"},
	{"CL.THROTTLE five 4 1 3600 0", "0 5 0 -1 18000"},
}

// TestRedisClients: clients of Redis in three languages call CL.THROTTLE, in both versions of the protocol.
func TestRedisClients(t *testing.T) {
	clients := []struct {
		name string
		call func(t *testing.T, address string, commands []string) (answers []string)
	}{
		{"redis-cli", func(t *testing.T, address string, commands []string) (answers []string) {
			path := program(t, "redis-cli")
			host, port, _ := net.SplitHostPort(address)
			flags := []string{"--no-auth-warning", "-a", "secret", "-h", host, "-p", port, "-3"}
			for _, command := range commands {
				args := append(slices.Clone(flags), strings.Fields(command)...)
				out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
				must.OK(t, err)
				answers = append(answers, strings.Join(strings.Fields(string(out)), " "))
			}
			return answers
		}},
		{"go-redis", func(t *testing.T, address string, commands []string) (answers []string) {
			c := redis.NewClient(
				&redis.Options{Addr: address, Password: "secret", ClientName: "test", Protocol: 3},
			)
			defer c.Close() //nolint:errcheck // it was asked
			for _, command := range commands {
				args := make([]any, 0, 6)
				for _, arg := range strings.Fields(command) {
					args = append(args, arg)
				}
				all, err := c.Do(t.Context(), args...).Slice()
				must.OK(t, err)
				answers = append(answers, strings.Trim(fmt.Sprint(all), "[]"))
			}
			return answers
		}},
		{"redis-py", func(t *testing.T, address string, commands []string) []string {
			python := pythonWith(t, "redis")
			host, port, _ := net.SplitHostPort(address)
			const script = `
import sys, redis
c = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), password='secret', protocol=2)
for command in sys.argv[3:]:
    print(*c.execute_command(*command.split()))
`
			// One process for all commands: Python takes a second of processor time to start.
			args := append([]string{"-c", script, host, port}, commands...)
			out, err := exec.CommandContext(t.Context(), python, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return strings.Split(strings.TrimSpace(string(out)), "\n")
		}},
	}
	var commands []string
	for _, v := range vectors {
		commands = append(commands, v[0])
	}
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) {
			answers := client.call(t, serve(t, "--token", "secret").resp, commands)
			if len(answers) != len(vectors) {
				t.Fatalf("%d answers to %d commands: %q", len(answers), len(vectors), answers)
			}
			for i, v := range vectors {
				if got := answers[i]; got != v[1] && !within(got, v[1]) {
					t.Errorf("%s: %s, want %s", v[0], got, v[1])
				}
			}
		})
	}
}

// within reports whether two answers are the same, but for the minutes that a slow machine takes between
// calls.
func within(got, want string) bool {
	a, b := strings.Fields(got), strings.Fields(want)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		var x, y int
		_, errA := fmt.Sscan(a[i], &x)
		_, errB := fmt.Sscan(b[i], &y)
		if errA != nil || errB != nil || x > y || i < 3 && x != y || x < y-300 {
			return false
		}
	}
	return true
}

// TestPipelines: pipelines of go-redis, of several connections, are answered in order and never above the
// limit.
func TestPipelines(t *testing.T) {
	s := serve(t)
	var group sync.WaitGroup
	var admitted atomic.Int64
	for range 4 {
		c := redis.NewClient(&redis.Options{Addr: s.resp})
		t.Cleanup(func() { _ = c.Close() })
		group.Go(func() {
			for range 10 {
				commands, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
					for range 50 {
						p.Do(t.Context(), "TRYPEMA.ALLOW", "k", 500, "1h")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				for _, command := range commands {
					if v, err := command.(*redis.Cmd).Slice(); err == nil && v[0] == int64(1) {
						admitted.Add(1)
					}
				}
			}
		})
	}
	group.Wait()
	if n := admitted.Load(); n != 500 {
		t.Errorf("%d were admitted, want 500", n)
	}
}

// TestFleet: four servers, which are asked by HTTP and by gRPC, share a limit in Redis, while one of them is
// killed, one ends, Redis is stopped for a while, and the configuration changes. Never more pass than the
// limit, clients see errors of the one that was killed alone, and what the limit admits is used, but for what
// that one had on lease.
func TestFleet(t *testing.T) {
	// At this pace some of the limit is left when Redis is stopped. At length, callers hardly pause.
	capacity, pause := int64(600), 25*time.Millisecond
	if explore.Long() {
		capacity, pause = 1500, time.Millisecond
	}
	for _, tt := range []struct {
		name string
		flag string
		used float64 // at least this share of the limit, with what the one that was killed had on lease
	}{
		{"Redis", "--hybrid=false", 0.99},
		{"Hybrid", "--hybrid=true", 0.95},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := redisserver.Start(t)
			config := file(t, "config.yaml", "")
			write := func(i int) {
				text := fmt.Sprintf(
					"domain: d\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: %d}}\n# version %d\n",
					capacity,
					i,
				)
				must.OK(t, os.WriteFile(config+".new", []byte(text), 0o600))
				must.OK(t, os.Rename(config+".new", config))
			}
			write(0)
			var servers []*server
			for range 4 {
				servers = append(
					servers,
					serve(
						t,
						"--config",
						config,
						"--watch",
						"50ms",
						"--redis",
						"redis://"+store.Addr(),
						"--redis-timeout",
						"10s",
						"--on-failure",
						"closed",
						"--drain",
						"3s",
						tt.flag,
					),
				)
			}
			var admitted, lost atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var group sync.WaitGroup
			for worker := range 8 {
				group.Go(func() {
					ask := []func(*server) asker{byHTTP, byGRPC}[worker/4]
					one := ask(servers[worker%4])
					for at := worker % 4; ctx.Err() == nil; time.Sleep(pause) {
						allowed, ends, err := one.ask(ctx)
						switch {
						case ctx.Err() != nil:
						case err == nil && allowed:
							admitted.Add(1)
						case err != nil && at != 3 && !isRefused(err): // the fourth is killed
							t.Log(err)
							lost.Add(1)
						}
						if err != nil || ends { // as a balancer does, which watches health
							one.close()
							at = (at + 1) % 4
							one = ask(servers[at])
						}
					}
					one.close()
				})
			}
			reach := func(n int64) {
				t.Helper()
				for end := time.Now().Add(time.Minute); admitted.Load() < n && time.Now().Before(end); {
					time.Sleep(5 * time.Millisecond)
				}
			}
			reach(capacity / 10)
			onLease := leased(t, servers[3])
			servers[3].kill()
			reach(capacity * 2 / 10)
			write(1)
			reach(capacity * 3 / 10)
			must.OK(t, servers[2].Process.Signal(syscall.SIGTERM))
			reach(capacity * 4 / 10)
			store.Pause()
			time.Sleep(500 * time.Millisecond)
			store.Resume()
			write(2)
			<-servers[2].ended // and has returned what it had on lease
			must.OK(t, servers[2].err)
			used := int64(float64(capacity)*tt.used) - onLease
			reach(used)
			time.Sleep(500 * time.Millisecond) // whoever could pass the limit does
			cancel()
			group.Wait()
			if n := admitted.Load(); n > capacity || n < used {
				t.Errorf("%d were admitted, want at most %d, and %d", n, capacity, used)
			}
			if n := lost.Load(); n > 0 {
				t.Errorf("%d requests were lost", n)
			}
			t.Logf("%d of %d were admitted; %d were on lease to the one that was killed", admitted.Load(), capacity, onLease)
		})
	}
}

// asker asks a server for the limit of TestFleet. ask reports that the connection ends, too.
type asker struct {
	ask   func(context.Context) (allowed, ends bool, err error)
	close func()
}

func byHTTP(s *server) asker {
	client := &http.Client{Transport: new(http.Transport)}
	return asker{close: client.CloseIdleConnections, ask: func(ctx context.Context) (allowed, ends bool, err error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/json",
			strings.NewReader(`{"domain":"d","descriptors":[{"entries":[{"key":"k","value":"v"}]}]}`))
		if err != nil {
			return false, false, err
		}
		w, err := client.Do(r)
		if err != nil {
			return false, false, err
		}
		if w.StatusCode != http.StatusOK && w.StatusCode != http.StatusTooManyRequests {
			err = errors.New(w.Status)
		}
		return w.StatusCode == http.StatusOK, w.Close, errors.Join(err, w.Body.Close())
	}}
}

func byGRPC(s *server) asker {
	c, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return asker{func(context.Context) (bool, bool, error) { return false, false, err }, func() {}}
	}
	client := pb.NewRateLimitServiceClient(c)
	question := &pb.RateLimitRequest{Domain: "d", Descriptors: []*ratelimit.RateLimitDescriptor{{
		Entries: []*ratelimit.RateLimitDescriptor_Entry{{Key: "k", Value: "v"}},
	}}}
	return asker{close: func() { _ = c.Close() }, ask: func(ctx context.Context) (allowed, ends bool, err error) {
		a, err := client.ShouldRateLimit(ctx, question)
		return a.GetOverallCode() == pb.RateLimitResponse_OK, false, err
	}}
}

// isRefused reports whether an error is that no server listens.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), syscall.ECONNREFUSED.Error())
}

// leased returns how much a server has on lease, by its metrics.
func leased(t testing.TB, s *server) (sum int64) {
	t.Helper()
	a, err := get(t, "http://"+s.admin+"/metrics")
	must.OK(t, err)
	for line := range strings.Lines(a.body) {
		if rest, ok := strings.CutPrefix(line, "trypema_leased_budget{"); ok {
			_, number, _ := strings.Cut(rest, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			must.OK(t, err)
			sum += int64(n)
		}
	}
	return sum
}
