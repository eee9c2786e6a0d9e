package serving

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/trypema/trypema/internal/proof/realredis"
)

// launcher starts a server.
type launcher func(context.Context, *stage) (*contender, error)

// measured is one comparison of several servers. The first of them is trypema serve.
type measured struct {
	name, title, client, asked string

	servers []launcher
	beside  bool // the first server is compared with the others, which may be trypema serve, too
	turn    func(context.Context, *stage, *contender, time.Duration) (turn, error)

	alone func(context.Context, *stage) (found string, err error) // of a case that is no comparison
}

const (
	callers = 50

	// The keys and limits of each request: some keys pass, some are over their limit.
	throttle    = " user:__rand_int__ 99 100 60"
	hotThrottle = "CL.THROTTLE hot 999999999 1000000000 60" // which is never over
)

// cases are all that is measured.
func cases() []measured {
	resp := func(name, title, asked string, pipeline int) measured {
		return measured{
			name: name, title: title, asked: asked,
			client: fmt.Sprintf("redis-benchmark, %d connections, 100,000 keys", callers),
			servers: []launcher{
				serve("trypema serve, Local", "resp", "CL.THROTTLE"+throttle),
				redisCell("CL.THROTTLE" + throttle),
				throttlecrab("redis", "THROTTLE"+throttle),
			},
			turn: redisBenchmark(pipeline),
		}
	}
	redis := func(name, title string, keys int) measured {
		return measured{
			name: name, title: title, client: fmt.Sprintf("ghz, %d callers on 4 connections", callers),
			asked: "≥ 3 with Hybrid, ≥ 1.2 with strict Redis, p99 no worse",
			servers: []launcher{
				serve("trypema serve --hybrid", "grpc", "", "--redis-prefix=hybrid", "--hybrid"),
				serve("trypema serve --redis", "grpc", "", "--redis-prefix=strict"),
				ratelimit,
			},
			turn: ghz(keys),
		}
	}
	return []measured{
		resp("resp-pipelined", "Redis protocol, pipelines of 16",
			"≥ 1.0 × redis-cell, ≥ 1.2 × throttlecrab-server", 16),
		resp("resp", "Redis protocol, no pipeline", "≥ 0.9 × both", 1),
		{
			name: "resp-hybrid", title: "Redis protocol, one hot key, Hybrid with four servers beside Local",
			client: fmt.Sprintf("redis-benchmark, %d connections, pipelines of 16", callers), asked: "≥ 0.8",
			beside: true,
			servers: []launcher{
				fleet("trypema serve --hybrid, one of four", "resp", hotThrottle),
				serve("trypema serve, Local", "resp", hotThrottle),
			},
			turn: redisBenchmark(16),
		},
		{
			name: "grpc", title: "Envoy's protocol, one descriptor, Local",
			client: fmt.Sprintf("ghz, %d callers on 4 connections, one key", callers), asked: "≥ 0.95",
			servers: []launcher{
				serve("trypema serve, Local", "grpc", ""), bareServer,
			},
			turn: ghz(1),
		},
		redis("grpc-redis", "Envoy's protocol, on one Redis, one key", 1),
		redis("grpc-redis-keys", "Envoy's protocol, on one Redis, 1,000 keys", 1000),
		{
			name: "http", title: "HTTP", asked: "≥ 1.2",
			client: fmt.Sprintf("a client of the benchmark, %d connections, 1,000 keys", callers),
			servers: []launcher{
				serve("trypema serve, POST /v1/allow", "http", `{"key":"user:%d","limit":1000000,"window":"1m"}`),
				throttlecrab("http", `{"key":"user:%d","max_burst":999999,"count_per_period":1000000,"period":60}`),
			},
			turn: webClient,
		},
		{name: "idle", title: "Idle connections", asked: "≤ 24 KiB each", alone: idle},
	}
}

// limits is the configuration of gRPC: one limit, which is never reached.
const limits = `domain: bench
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 4000000000}}
`

// config writes the configuration, and returns the folder that has it.
func (s *stage) config() (string, error) {
	dir := filepath.Join(s.dir, "data", "ratelimit", "config")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "limits.yaml"), []byte(limits), 0o600)
}

// serve starts trypema serve with one listener. With arguments it counts in Redis.
func serve(name, listener, request string, args ...string) launcher {
	return func(ctx context.Context, s *stage) (*contender, error) {
		dir, err := s.config()
		if err != nil {
			return nil, err
		}
		where := args
		if len(args) > 0 {
			redis, err := s.server(ctx)
			if err != nil {
				return nil, err
			}
			where = append([]string{"--redis=redis://" + redis}, args...)
		}
		one := contender{name: name, request: request, path: "/v1/allow"}
		return start(ctx, one, func(address string) *exec.Cmd {
			all := []string{"serve", "--config=" + dir, "--log-level=warn", "--watch=0s"}
			for _, other := range []string{"grpc", "http", "resp", "admin"} {
				if other != listener {
					all = append(all, "--"+other+"=")
				}
			}
			return exec.CommandContext(ctx, s.trypema, append(append(all, "--"+listener+"="+address), where...)...)
		})
	}
}

// fleet starts four servers with Hybrid. One is asked.
func fleet(name, listener, request string) launcher {
	return func(ctx context.Context, s *stage) (*contender, error) {
		all := new(contender)
		for range 4 {
			one, err := serve(name, listener, request, "--redis-prefix=fleet", "--hybrid")(ctx, s)
			if err != nil {
				all.stop()
				return nil, err
			}
			one.ends = append(all.ends, one.ends...)
			all = one
		}
		return all, nil
	}
}

// redisCell starts a redis-server with redis-cell.
func redisCell(request string) launcher {
	return func(ctx context.Context, s *stage) (*contender, error) {
		module, err := s.cell(ctx)
		if err != nil {
			return nil, err
		}
		r, err := realredis.Start(ctx, "--loadmodule", module)
		if err := found(err); err != nil {
			return nil, err
		}
		return &contender{
			name: "redis-server with redis-cell", peer: true, address: r.Addr(), request: request,
			ends: []func(){func() { _ = r.Close() }},
		}, nil
	}
}

// throttlecrab starts throttlecrab-server with one of its transports, http or redis.
func throttlecrab(transport, request string) launcher {
	return func(ctx context.Context, s *stage) (*contender, error) {
		const name = "throttlecrab-server"
		path, err := s.program(ctx, name, s.command.Throttlecrab, "cargo", name+"@0.4.40")
		if err != nil {
			return nil, err
		}
		one := contender{name: name, peer: true, request: request, path: "/throttle"}
		return start(ctx, one, func(address string) *exec.Cmd {
			host, port, _ := net.SplitHostPort(address) // it was made of both
			return exec.CommandContext(ctx, path, "--"+transport, "--"+transport+"-host", host,
				"--"+transport+"-port", port, "--log-level", "warn")
		})
	}
}

// ratelimit starts envoyproxy/ratelimit.
func ratelimit(ctx context.Context, s *stage) (*contender, error) {
	const name = "envoyproxy/ratelimit"
	path, err := s.program(ctx, "service_cmd", s.command.Ratelimit, "go", ratelimitPackage)
	if err != nil {
		return nil, err
	}
	redis, err := s.server(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.config(); err != nil {
		return nil, err
	}
	var ports [2]string
	for i := range ports {
		address, err := free(ctx)
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(address) // it was made of both
	}
	return start(ctx, contender{name: name, peer: true}, func(address string) *exec.Cmd {
		host, port, _ := net.SplitHostPort(address)
		c := exec.CommandContext(ctx, path)
		c.Env = append(os.Environ(),
			"USE_STATSD=false", "DISABLE_STATS=true", "REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+redis,
			"RUNTIME_ROOT="+filepath.Join(s.dir, "data"), "RUNTIME_SUBDIRECTORY=ratelimit",
			"RUNTIME_WATCH_ROOT=false", "HOST="+host, "GRPC_HOST="+host, "DEBUG_HOST="+host,
			"PORT="+ports[0], "GRPC_PORT="+port, "DEBUG_PORT="+ports[1], "LOG_LEVEL=error")
		return c
	})
}

// bareServer starts this program as a gRPC server that does not look.
func bareServer(ctx context.Context, s *stage) (*contender, error) {
	one := contender{name: "a server that answers OK without looking", peer: true}
	return start(ctx, one, func(address string) *exec.Cmd {
		return exec.CommandContext(ctx, s.self, "bare-server", address)
	})
}
