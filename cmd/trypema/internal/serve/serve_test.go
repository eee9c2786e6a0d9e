package serve

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/trypema/trypema/internal/cli"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/realredis"
)

func TestMain(m *testing.M) { leak.Main(m) }

// program is trypema with serve alone.
type program struct {
	Serve Command `cmd:""`
}

// output is what a process writes, while others read it.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.String()
}

// process is trypema serve in this process.
type process struct {
	t        testing.TB
	server   *server
	stop     context.CancelFunc
	ended    chan int
	out, err output
}

// ports of the test instead of the defaults.
var anyPorts = []string{
	"--grpc",
	"127.0.0.1:0",
	"--http",
	"127.0.0.1:0",
	"--resp",
	"127.0.0.1:0",
	"--admin",
	"127.0.0.1:0",
}

// start starts trypema serve, and ends it with the test.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	started := make(chan *server, 1)
	commands := &program{Serve: Command{started: func(s *server) { started <- s }}}
	run := cli.Program{Name: "trypema", Commands: commands}
	go func() {
		p.ended <- run.Run(ctx, slices.Concat([]string{"serve", "--drain", "0s"}, anyPorts, args), &p.out, &p.err)
	}()
	select {
	case p.server = <-started:
	case code := <-p.ended:
		t.Fatalf("exit status %d: %s", code, p.err.String())
	}
	t.Cleanup(func() { p.end() })
	return p
}

// end stops the process and returns its exit status.
func (p *process) end() int {
	p.stop()
	code := <-p.ended
	p.ended <- code
	return code
}

func (p *process) address(name string) string {
	p.t.Helper()
	for _, s := range p.server.services {
		if s.name == name {
			return s.address()
		}
	}
	p.t.Fatalf("there is no listener %s", name)
	return ""
}

// get returns the status and the body of a page.
func (p *process) get(listener, path string) (code int, body string) {
	p.t.Helper()
	return fetch(p.t, http.DefaultClient, "http://"+p.address(listener)+path, "")
}

func fetch(t testing.TB, c *http.Client, url, body string) (code int, text string) {
	t.Helper()
	defer c.CloseIdleConnections()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must.OK(t, err)
	answer, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	all, err := io.ReadAll(answer.Body)
	must.OK(t, err)
	return answer.StatusCode, string(all)
}

// grpc returns a client of the rate limit service, and the connection.
func (p *process) grpc(creds credentials.TransportCredentials) *grpc.ClientConn {
	p.t.Helper()
	c, err := grpc.NewClient(p.address("grpc"), grpc.WithTransportCredentials(creds))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func question(t testing.TB, domain, key, value string) *pb.RateLimitRequest {
	t.Helper()
	r := new(pb.RateLimitRequest)
	text := fmt.Sprintf(
		`{"domain":%q,"descriptors":[{"entries":[{"key":%q,"value":%q}]}]}`,
		domain,
		key,
		value,
	)
	must.OK(t, protojson.Unmarshal([]byte(text), r))
	return r
}

// say sends a line to the RESP listener and returns the first line of the answer.
func say(t testing.TB, c net.Conn, line string) string {
	t.Helper()
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		return err.Error()
	}
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(text)
}

func dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), network, address)
	must.OK(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestExample: without flags each protocol serves the example, and the commands to try are printed.
func TestExample(t *testing.T) {
	p := start(t)
	for i := range 12 {
		want := 200
		if i >= 10 {
			want = 429
		}
		if code, _ := p.get("http", "/auth/example"); code != want {
			t.Fatalf("request %d: %d, want %d", i+1, code, want)
		}
	}
	client := pb.NewRateLimitServiceClient(p.grpc(insecure.NewCredentials()))
	for i, want := range []pb.RateLimitResponse_Code{1, 1, 2} {
		got, err := client.ShouldRateLimit(t.Context(), question(t, "example", "path", "/login"))
		if err != nil || got.OverallCode != want {
			t.Errorf("call %d: %v, %v", i+1, got, err)
		}
	}
	if code, body := fetch(t, http.DefaultClient, "http://"+p.address("http")+"/json",
		`{"domain":"example","descriptors":[{"entries":[{"key":"path","value":"/login"}]}]}`); code != 429 {
		t.Errorf("/json: %d %s", code, body)
	}
	if got := say(t, dial(t, "tcp", p.address("resp")), "CL.THROTTLE user:42 4 5 60"); got != "*5" {
		t.Errorf("CL.THROTTLE: %s", got)
	}
	for path, want := range map[string]string{
		"/healthz": "ok\n", "/readyz": "ok\n",
		"/rlconfig": "example.path_/login: 2 per minute\nexample.remote_address: 10 per minute\n" +
			"policy example: per address=10/m\n",
		"/metrics": `trypema_serve_requests_total{method="auth",outcome="denied",protocol="http"} 2`,
		"/limited": `"key":"127.0.0.1","denied":2`,
	} {
		if code, body := p.get("admin", path); code != 200 ||
			!strings.Contains(strings.ReplaceAll(body, `": `, `":`), want) {
			t.Errorf("%s: %d %s, want %s", path, code, body, want)
		}
	}
	if code, _ := p.get("admin", "/debug/pprof/"); code != 404 {
		t.Errorf("pprof without --pprof: %d", code)
	}
	if code, body := p.get("http", "/healthcheck"); code != 200 || body != "OK\n" {
		t.Errorf("/healthcheck: %d %s", code, body)
	}
	if shown, ok := documentedGreeting(t); ok && shown != plain(p.out.String()) {
		t.Errorf("it prints\n%s\nand docs/serve.md has\n%s", plain(p.out.String()), shown)
	}
	if code := p.end(); code != cli.ExitOK {
		t.Errorf("exit status %d: %s", code, p.err.String())
	}
}

// documentedGreeting is what docs/serve.md says that the example prints; ok is false where the module is by
// itself.
func documentedGreeting(t *testing.T) (text string, ok bool) {
	t.Helper()
	page, err := os.ReadFile("../../../../docs/serve.md")
	if err != nil {
		return "", false
	}
	explore.ReadsRepository()
	_, text, _ = strings.Cut(string(page), "It serves an example on loopback, and prints\n\n```text\n")
	text, _, ok = strings.Cut(text, "```")
	if !ok {
		t.Error("docs/serve.md does not show what it prints")
	}
	return plain(text), ok
}

// plain is a text without ports, and without the spaces that line up columns.
func plain(text string) string {
	text = regexp.MustCompile(`(:| -p )\d{4,}`).ReplaceAllString(text, "$1")
	return strings.TrimSpace(regexp.MustCompile(` +`).ReplaceAllString(text, " "))
}

func TestWrongFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "empty")
	must.OK(t, os.WriteFile(file, nil, 0o600))
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.OK(t, err)
	defer busy.Close() //nolint:errcheck // the test is over
	tests := []struct {
		args string
		code int
		want string
	}{
		{"--hybrid", 2, "--hybrid is true; it must be left out unless --redis is given"},
		{
			"--redis http://u:secret@h",
			2,
			"--redis is wrong; it must be a URL such as redis://user:password@host:6379/0",
		},
		{
			"--redis redis://h --on-failure maybe",
			2,
			`--on-failure is "maybe"; it must be one of local, open, closed, error`,
		},
		{"--redis redis://h --redis-timeout 0s", 2, "--redis-timeout is 0s; it must be at least 1ms"},
		{
			"--redis redis://h --redis-ca x",
			2,
			"--redis-ca is x; it must be left out unless --redis begins with rediss://",
		},
		{"--redis-ca x", 2, "--redis-ca is x; it must be left out unless --redis is given"},
		{
			"--trusted-proxies 10.0.0.0",
			2,
			`--trusted-proxies is "10.0.0.0"; it must be networks such as 10.0.0.0/8`,
		},
		{"--trusted-proxies 0.0.0.0/0", 2, "with --trusted-proxies that are not all there is"},
		{"--auth-key cookie", 2, `--auth-key is "cookie"; it must be address, authorization or header:NAME`},
		{"--ipv6-bits 200", 2, "--ipv6-bits is 200; it must be from 1 to 128"},
		{"--watch -1s", 2, "--watch is -1s; it must be 0s or more"},
		{"--max-conns 0", 2, "--max-conns is 0; it must be at least 1"},
		{"--log-level loud", 2, `--log-level is "loud"; it must be one of debug, info, warn, error`},
		{"--on-failure open", 2, "--on-failure is open; it must be left out unless --redis is given"},
		{"--instances 2", 2, "--instances is 2; it must be left out unless --redis is given"},
		{"file.yaml", 2, "--config has no value; it must be given in front of a file: --config file.yaml"},
		{"--check", 2, "--check is true; it must be given with files, or with --config"},
		{"--grpc-client-name a.test", 2, "--grpc-client-name is a.test; it must be left out unless --grpc-client-ca is given"},
		{"--grpc-max-age 0s", 2, "--grpc-max-age is 0s; it must be above 0s"},
		{"--xds h:1 --config x", 2, "--xds is h:1; it must be left out if --config is given"},
		{"--grpc= --http= --resp=", 2, `--grpc is ""; it must be an address`},
		{"--grpc-cert x", 1, `--grpc-cert is "x" and --grpc-key is ""; both must be files if one is`},
		{"--http-cert none --http-key none", 1, "--http-cert: open none: no such file or directory"},
		{"--config none.yaml", 1, "none.yaml: no such file or directory"},
		{"--token-file " + file, 1, "in which there is no token"},
		{"--http " + busy.Addr().String(), 1, "address already in use"},
		{"--http nowhere", 1, "--http is nowhere: "},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			run := cli.Program{Name: "trypema", Commands: new(program)}
			code := run.Run(t.Context(), slices.Concat([]string{"serve"}, anyPorts, strings.Fields(tt.args)),
				&out, &errs)
			if code != tt.code || strings.Count(errs.String(), tt.want) != 1 { // said, and not twice
				t.Errorf("exit status %d, %s, want %d, %s", code, errs.String(), tt.code, tt.want)
			}
			if strings.Contains(errs.String(), "secret") {
				t.Errorf("the password is shown: %s", errs.String())
			}
		})
	}
}

// TestEnvironment: flags are read from the environment.
func TestEnvironment(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	t.Setenv("TRYPEMA_GRPC_CERT", "cert")
	t.Setenv("TRYPEMA_TOKEN", "secret")
	t.Setenv("TRYPEMA_HTTP", "unix:"+socket)
	var errs bytes.Buffer
	run := cli.Program{Name: "trypema", Commands: new(program)}
	run.Run(t.Context(), []string{"serve"}, io.Discard, &errs)
	if want := `--grpc-cert is "cert" and --grpc-key is ""`; !strings.Contains(errs.String(), want) {
		t.Fatalf("%s, want %s", errs.String(), want)
	}
	t.Setenv("TRYPEMA_GRPC_CERT", "")
	ctx, cancel := context.WithCancel(t.Context())
	commands := &program{Serve: Command{started: func(s *server) {
		if len(s.tokens) != 1 || s.tokens[0] != "secret" || s.services[1].address() != "unix:"+socket {
			t.Errorf("tokens %v, HTTP at %s", s.tokens, s.services[1].address())
		}
		cancel()
	}}}
	run = cli.Program{Name: "trypema", Commands: commands}
	code := run.Run(ctx,
		[]string{"serve", "--drain=0s", "--grpc=127.0.0.1:0", "--resp=127.0.0.1:0", "--admin="}, io.Discard,
		&errs)
	if code != 0 {
		t.Errorf("exit status %d: %s", code, errs.String())
	}
}

// TestFlags: every flag is in a group of the help, and has the variable of its name, but --check, which is no
// setting of a server.
func TestFlags(t *testing.T) {
	var all func(of reflect.Type, prefix, variable, group string)
	n := 0
	all = func(of reflect.Type, prefix, variable, group string) {
		for i := range of.NumField() {
			f := of.Field(i)
			_, isArgument := f.Tag.Lookup("arg")
			_, isEmbedded := f.Tag.Lookup("embed")
			in := cmp.Or(f.Tag.Get("group"), group)
			switch {
			case !f.IsExported() || isArgument:
				continue
			case isEmbedded:
				all(f.Type, prefix+f.Tag.Get("prefix"), variable+f.Tag.Get("envprefix"), in)
				continue
			}
			name := f.Tag.Get("name")
			if name == "" { // as the parser makes it of the field
				name = strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(f.Name, "$1-$2"))
			}
			name = prefix + name
			want := "TRYPEMA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			if got := variable + f.Tag.Get("env"); got != want && name != "check" {
				t.Errorf("--%s has the variable %q, want %q", name, got, want)
			}
			if in == "" {
				t.Errorf("--%s is in no group", name)
			}
			n++
		}
	}
	all(reflect.TypeFor[Command](), "", "", "")
	if n < 40 {
		t.Errorf("there are %d flags", n)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write(t, good,
		"domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: minute, requests_per_unit: 1}}\n")
	write(t, bad, "domain: e\ndescriptors:\n  - {key: a, rate_limit: {unit: minut}}\n  - {value: b}\n")
	tests := []struct {
		args []string
		code int
		out  string
	}{
		{[]string{good}, 0, "d.a: 1 per minute\n1 file, 1 rule, 0 policies: no errors\n"},
		{
			[]string{bad},
			1,
			bad + ":3:33: e.a: rate_limit: unit is \"minut\"; it must be second, minute, hour, day, week, month or year\n" +
				bad + ":4:5: descriptor 2 of e: key is missing or empty\n",
		},
		{[]string{dir}, 1, bad + ":3:33: "},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		run := cli.Program{Name: "trypema", Commands: new(program)}
		code := run.Run(t.Context(), append([]string{"serve", "--check"}, tt.args...), &out, &errs)
		if code != tt.code || errs.Len() > 0 || !strings.HasPrefix(out.String(), tt.out) {
			t.Errorf("%s: exit status %d, %q, %q", tt.args, code, out.String(), errs.String())
		}
	}
}

func write(t testing.TB, name, text string) {
	t.Helper()
	must.OK(t, os.WriteFile(name, []byte(text), 0o600))
}

func limitTo(n int) string {
	return fmt.Sprintf(
		"domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: hour, requests_per_unit: %d}}\n",
		n,
	)
}

// TestReload: a change of the files is put in place, however it comes about; one that is wrong is told, and
// the old one stays.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	mount := func(version string, n int) { // as a ConfigMap is mounted
		data := filepath.Join(dir, version)
		must.OK(t, os.Mkdir(data, 0o700))
		write(t, filepath.Join(data, "config.yaml"), limitTo(n))
		must.OK(t, os.Symlink(version, filepath.Join(dir, "..new")))
		must.OK(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	}
	mount("..1", 1)
	must.OK(t, os.Symlink(filepath.Join("..data", "config.yaml"), file))
	p := start(t, "--config", dir, "--watch", "5ms", "--envoy-metrics")
	uses := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("a limit of %d", n), func() bool {
			_, body := p.get("admin", "/rlconfig")
			return strings.Contains(body, fmt.Sprintf("d.a: %d per hour\n", n)) &&
				!strings.Contains(body, "refused")
		})
	}
	uses(1)
	mount("..2", 2)
	uses(2)
	if err := os.Remove(file); err != nil { // from now on a file
		t.Fatal(err)
	}
	write(t, file, limitTo(3))
	uses(3)
	write(t, file+".tmp", limitTo(4)) // as an editor writes
	must.OK(t, os.Rename(file+".tmp", file))
	uses(4)
	write(t, file, "domain: d\ndescriptors: {}\n")
	eventually(t, "a complaint", func() bool {
		_, body := p.get("admin", "/rlconfig")
		return strings.Contains(body,
			"# refused: "+file+":2:14: descriptors of d is a mapping; it must be a list\n") &&
			strings.Contains(body, "d.a: 4 per hour\n")
	})
	for _, metric := range []string{ // on a slow machine it may have seen a folder without its file, too
		`trypema_serve_config_loads_total{result="error"} `, `trypema_serve_config_loads_total{result="success"} `,
		"ratelimit_service_config_load_error ", "ratelimit_service_config_load_success ",
	} {
		_, body := p.get("admin", "/metrics")
		_, value, _ := strings.Cut(body, "\n"+metric)
		value, _, _ = strings.Cut(value, "\n")
		n, err := strconv.Atoi(value)
		if least := map[bool]int{true: 1, false: 4}[strings.Contains(metric, "error")]; err != nil || n < least {
			t.Errorf("%s%s, want at least %d", metric, value, least)
		}
	}
	if code, body := p.get("admin", "/readyz"); code != 200 {
		t.Errorf("with the old configuration it is not ready: %s", body)
	}
	if !strings.Contains(p.err.String(), "level=ERROR") ||
		!strings.Contains(p.err.String(), "config.yaml:2:14") {
		t.Errorf("the log does not say what is wrong: %s", p.err.String())
	}
	must.OK(t, os.Remove(file))
	eventually(t, "a complaint about the folder", func() bool {
		_, body := p.get("admin", "/rlconfig")
		return strings.Contains(body, "the folder has no file")
	})
	write(t, file, limitTo(5))
	uses(5)
}

// TestReloadUnderLoad: while files change, no request is lost, and no more pass than the limit.
func TestReloadUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, limitTo(100))
	p := start(t, "--config", file, "--watch", "1ms")
	client := pb.NewRateLimitServiceClient(p.grpc(insecure.NewCredentials()))
	var admitted, lost atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				got, err := client.ShouldRateLimit(context.Background(), question(t, "d", "a", "b"))
				switch {
				case err != nil:
					lost.Add(1)
				case got.OverallCode == pb.RateLimitResponse_OK:
					admitted.Add(1)
				}
			}
		})
	}
	for i := range 20 {
		write(t, file, limitTo(100)+strings.Repeat("\n", i))
		time.Sleep(2 * time.Millisecond)
	}
	group.Wait()
	if lost.Load() != 0 || admitted.Load() != 100 {
		t.Errorf("%d requests were lost, %d admitted, want none and 100", lost.Load(), admitted.Load())
	}
}

// TestDrain: after SIGTERM health says no while requests are still served, and then all ends.
func TestDrain(t *testing.T) {
	p := start(t, "--drain", "2s")
	c := p.grpc(insecure.NewCredentials())
	health := healthpb.NewHealthClient(c)
	is := func(want healthpb.HealthCheckResponse_ServingStatus) func() bool {
		return func() bool {
			h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "ratelimit"})
			return err == nil && h.Status == want
		}
	}
	eventually(t, "serving", is(healthpb.HealthCheckResponse_SERVING))
	p.stop()
	eventually(t, "not serving", is(healthpb.HealthCheckResponse_NOT_SERVING))
	if code, body := p.get("admin", "/readyz"); code != 503 || body != "draining\n" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := p.get("admin", "/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	got, err := pb.NewRateLimitServiceClient(c).
		ShouldRateLimit(t.Context(), question(t, "example", "path", "/login"))
	if err != nil || got.OverallCode != pb.RateLimitResponse_OK {
		t.Errorf("a request while it drains: %v, %v", got, err)
	}
	if code := p.end(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if code, _ := p.get("admin", "/healthz"); code != 0 {
		t.Errorf("it still serves: %d", code)
	}
}

// authority signs certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	pool *x509.CertPool
	next int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem"), pool: x509.NewCertPool(), next: 1}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().
			Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	must.OK(t, err)
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	write(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.OK(t, err)
	return key
}

// sign writes a new certificate for 127.0.0.1 with a name, and its key.
func (a *authority) sign(name, certFile, keyFile string) {
	a.t.Helper()
	a.next++
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			a.next,
		), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:  []string{name + ".test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	write(a.t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// TestTLS: each listener serves by TLS, wants a certificate of clients where it is told an authority, and
// takes a new certificate; one that is wrong leaves the old one. TestClientNames: of the certificates that an
// authority has signed, those with one of the names are accepted.
func TestClientNames(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca := newAuthority(t)
	for _, name := range []string{"server", "envoy", "stranger"} {
		ca.sign(name, file(name+"-cert"), file(name+"-key"))
	}
	p := start(t, "--http-cert", file("server-cert"), "--http-key", file("server-key"), "--http-client-ca", ca.file,
		"--http-client-name", "other.test, envoy.test")
	for name, want := range map[string]int{"envoy": 200, "stranger": 0} {
		pair, err := tls.LoadX509KeyPair(file(name+"-cert"), file(name+"-key"))
		must.OK(t, err)
		c := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{pair}},
		}}
		if code, body := fetch(t, c, "https://"+p.address("http")+"/auth/example", ""); code != want {
			t.Errorf("%s: %d %s, want %d", name, code, body, want)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, other := newAuthority(t), newAuthority(t)
	ca.sign("first", file("cert"), file("key"))
	ca.sign("client", file("client-cert"), file("client-key"))
	other.sign("stranger", file("other-cert"), file("other-key"))
	var args []string
	for _, l := range []string{"grpc", "http", "resp", "admin"} {
		args = append(args, "--"+l+"-cert", file("cert"), "--"+l+"-key", file("key"))
	}
	args = append(args, "--http-client-ca", ca.file, "--grpc-client-ca", ca.file, "--resp-client-ca", ca.file,
		"--watch", "5ms")
	p := start(t, args...)
	config := func(cert string) *tls.Config {
		c := &tls.Config{RootCAs: ca.pool}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(file(cert+"-cert"), file(cert+"-key"))
			must.OK(t, err)
			c.Certificates = []tls.Certificate{pair}
		}
		return c
	}
	client := func(cert string) *http.Client {
		return &http.Client{
			Transport: &http.Transport{TLSClientConfig: config(cert), ForceAttemptHTTP2: true},
		}
	}
	for cert, want := range map[string]int{"client": 200, "": 0, "other": 0} {
		if code, body := fetch(t, client(cert), "https://"+p.address("http")+"/auth/example", ""); code != want {
			t.Errorf("HTTP with the certificate %q: %d %s, want %d", cert, code, body, want)
		}
		_, err := pb.NewRateLimitServiceClient(p.grpc(credentials.NewTLS(config(cert)))).
			ShouldRateLimit(t.Context(), question(t, "example", "path", "/"))
		if (err == nil) != (want == 200) {
			t.Errorf("gRPC with the certificate %q: %v", cert, err)
		}
		c := tls.Client(dial(t, "tcp", p.address("resp")),
			func() *tls.Config { c := config(cert); c.ServerName = "127.0.0.1"; return c }())
		if got := say(t, c, "PING"); (got == "+PONG") != (want == 200) {
			t.Errorf("RESP with the certificate %q: %s", cert, got)
		}
	}
	name := func() string {
		c, err := tls.Dial("tcp", p.address("admin"), &tls.Config{RootCAs: ca.pool})
		if err != nil {
			return err.Error()
		}
		defer c.Close() //nolint:errcheck // it was asked
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Fatal(got)
	}
	ca.sign("second", file("cert"), file("key"))
	eventually(t, "the second certificate", func() bool { return name() == "second" })
	write(t, file("key"), "no key")
	eventually(t, "a complaint",
		func() bool { return strings.Contains(p.err.String(), "the certificate stays as it was") })
	if got := name(); got != "second" {
		t.Errorf("with a wrong key: %s", got)
	}
	ca.sign("third", file("cert"), file("key"))
	eventually(t, "the third certificate", func() bool { return name() == "third" })
}

// TestSockets: listeners can be unix sockets. What is left of one is replaced; one in use is not.
func TestSockets(t *testing.T) {
	dir := t.TempDir()
	resp, web := filepath.Join(dir, "resp"), filepath.Join(dir, "http")
	left, err := new(net.ListenConfig).Listen(t.Context(), "unix", resp)
	must.OK(t, err)
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	p := start(t, "--resp", "unix:"+resp, "--http", "unix:"+web, "--trust-sockets")
	if got := say(t, dial(t, "unix", resp), "PING"); got != "+PONG" {
		t.Errorf("RESP: %s", got)
	}
	c := &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", web)
		}},
	}
	if code, body := fetch(t, c, "http://x/auth/example", ""); code != 200 {
		t.Errorf("HTTP: %d %s", code, body)
	}
	var errs bytes.Buffer
	run := cli.Program{Name: "trypema", Commands: new(program)}
	if code := run.Run(t.Context(), slices.Concat([]string{"serve"}, anyPorts, []string{"--resp", "unix:" + resp}), io.Discard, &errs); code != 1 ||
		!strings.Contains(errs.String(), "address already in use") {
		t.Errorf("a socket in use: %d %s", code, errs.String())
	}
	write(t, filepath.Join(dir, "file"), "precious")
	run.Run(t.Context(),
		slices.Concat([]string{"serve"}, anyPorts, []string{"--resp", "unix:" + filepath.Join(dir, "file")}),
		io.Discard, &errs)
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "precious" {
		t.Errorf("a file that is no socket: %q, %v", data, err)
	}
	p.end()
	if _, err := os.Stat(resp); err == nil {
		t.Error("the socket is left")
	}
}

// TestMaxConns: connections beyond the bound are closed, and there is room again when others end.
func TestMaxConns(t *testing.T) {
	p := start(t, "--max-conns", "2", "--admin=")
	first, second := dial(t, "tcp", p.address("resp")), dial(t, "tcp", p.address("resp"))
	for _, c := range []net.Conn{first, second} {
		if got := say(t, c, "PING"); got != "+PONG" {
			t.Fatal(got)
		}
	}
	if got := say(t, dial(t, "tcp", p.address("resp")), "PING"); got == "+PONG" {
		t.Error("a third connection is served")
	}
	_ = first.Close()
	eventually(t, "room", func() bool { return say(t, dial(t, "tcp", p.address("resp")), "PING") == "+PONG" })
	if got := say(t, second, "PING"); got != "+PONG" {
		t.Errorf("the second: %s", got)
	}
}

// TestTokens: each protocol but gRPC wants the token.
func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write(t, file, "one\n\n  two  \n")
	p := start(t, "--token-file", file)
	c := dial(t, "tcp", p.address("resp"))
	for _, step := range [][2]string{{"PING", "-NOAUTH Authentication required."}, {"AUTH two", "+OK"}, {"PING", "+PONG"}} {
		if got := say(t, c, step[0]); got != step[1] {
			t.Errorf("%s: %s, want %s", step[0], got, step[1])
		}
	}
	if code, _ := p.get("http", "/v1/usage?policy=example&key=k"); code != 401 {
		t.Errorf("/v1 without a token: %d", code)
	}
	if code, _ := p.get("http", "/auth/example"); code != 401 {
		t.Errorf("/auth without a token: %d", code)
	}
	if strings.Contains(p.out.String(), "Try:") {
		t.Error("commands to try that do not work are printed")
	}
}

// TestEnvoyMetrics: the metrics of envoyproxy/ratelimit, by its names.
func TestEnvoyMetrics(t *testing.T) {
	p := start(t, "--envoy-metrics")
	client := pb.NewRateLimitServiceClient(p.grpc(insecure.NewCredentials()))
	for range 3 {
		if _, err := client.ShouldRateLimit(t.Context(), question(t, "example", "path", "/login")); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = client.ShouldRateLimit(t.Context(), new(pb.RateLimitRequest))
	_, body := p.get("admin", "/metrics")
	for _, want := range []string{
		`ratelimit_service_rate_limit_total_hits{domain="example",key1="path_/login",key2=""} 3`,
		`ratelimit_service_rate_limit_over_limit{domain="example",key1="path_/login",key2=""} 1`,
		`ratelimit_service_rate_limit_within_limit{domain="example",key1="path_/login",key2=""} 2`,
		`ratelimit_service_rate_limit_near_limit{domain="example",key1="path_/login",key2=""} 1`,
		`ratelimit_service_should_rate_limit_error{err_type="service_error"} 1`,
		`ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 4`,
		`ratelimit_service_response_time_seconds_count{grpc_method="ShouldRateLimit"} 4`,
		`trypema_serve_requests_total{method="ShouldRateLimit",outcome="denied",protocol="rls"} 1`,
		`trypema_serve_requests_total{method="ShouldRateLimit",outcome="wrong",protocol="rls"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no metric %s", want)
		}
	}
}

// startRedis starts a Redis for the test. Where there is none the test is skipped, if INSTALL=0 says so.
func startRedis(t testing.TB) *realredis.Server {
	t.Helper()
	s, err := realredis.Start(context.Background())
	var missing *realredis.MissingError
	if errors.As(err, &missing) && os.Getenv("INSTALL") == "0" {
		t.Skip(err)
	}
	must.OK(t, err)
	t.Cleanup(func() { must.Report(t, s.Close()) })
	return s
}

// TestRedis: servers share limits in Redis, Hybrid or not; and while it is gone the policy decides.
func TestRedis(t *testing.T) {
	for _, hybrid := range []string{"--hybrid=false", "--hybrid=true"} {
		t.Run(hybrid, func(t *testing.T) {
			server := startRedis(t)
			file := filepath.Join(t.TempDir(), "config.yaml")
			write(t, file, limitTo(50))
			args := []string{
				"--config",
				file,
				"--redis",
				"redis://" + server.Addr(),
				"--redis-timeout",
				"5s",
				hybrid,
			}
			a, b := start(t, args...), start(t, args...)
			clients := []pb.RateLimitServiceClient{
				pb.NewRateLimitServiceClient(
					a.grpc(insecure.NewCredentials()),
				), pb.NewRateLimitServiceClient(b.grpc(insecure.NewCredentials())),
			}
			// What one server has on lease and does not use goes to the other within some exchanges.
			admitted, end := 0, time.Now().Add(20*time.Second)
			for i := 0; i < 120 || admitted < 48 && time.Now().Before(end); i++ {
				got, err := clients[i%2].ShouldRateLimit(t.Context(), question(t, "d", "a", "x"))
				must.OK(t, err)
				if got.OverallCode == pb.RateLimitResponse_OK {
					admitted++
				}
			}
			if admitted > 50 || admitted < 48 {
				t.Errorf("%d were admitted, want at most 50, and 48", admitted)
			}
			if code := a.end(); code != 0 {
				t.Errorf("exit status %d: %s", code, a.err.String())
			}
		})
	}
}

// TestRedisIsBack: trypema serve notices that Redis is back, also without requests.
func TestRedisIsBack(t *testing.T) {
	for provider, hybrid := range map[string]string{"redis": "--hybrid=false", "hybrid": "--hybrid=true"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel() // it waits
			server := startRedis(t)
			file := filepath.Join(t.TempDir(), "config.yaml")
			write(t, file, limitTo(50))
			p := start(t, "--config", file, "--redis", "redis://"+server.Addr(), hybrid)
			client := pb.NewRateLimitServiceClient(p.grpc(insecure.NewCredentials()))
			up := func(is string) bool {
				_, body := p.get("admin", "/metrics")
				metric := `trypema_redis_up{policy="serve",provider="` + provider + `",strategy="absolute"} `
				return strings.Contains(body, metric+is+"\n") &&
					strings.Contains(p.err.String(), "Redis is available") == (is == "1")
			}
			must.OK(t, server.Kill())
			eventually(t, "the end of Redis", func() bool {
				_, err := client.ShouldRateLimit(t.Context(), question(t, "d", "a", "x"))
				must.OK(t, err)
				return strings.Contains(p.err.String(), "Redis is unavailable") && up("0")
			})
			must.OK(t, server.Restart(t.Context()))
			eventually(t, "the return of Redis", func() bool { return up("1") })
		})
	}
}

// TestRedisIsGone: while Redis does not answer, --on-failure decides.
func TestRedisIsGone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, limitTo(1))
	tests := []struct {
		policy string
		ready  int
		first  string
	}{{"local", 200, "OK"}, {"open", 200, "OK"}, {"closed", 503, "OVER_LIMIT"}, {"error", 503, "error"}}
	for _, tt := range tests {
		t.Run(tt.policy, func(t *testing.T) {
			p := start(
				t,
				"--config",
				file,
				"--redis",
				"redis://u:secret@127.0.0.1:1",
				"--redis-timeout",
				"50ms",
				"--on-failure",
				tt.policy,
			)
			client := pb.NewRateLimitServiceClient(p.grpc(insecure.NewCredentials()))
			got, err := client.ShouldRateLimit(t.Context(), question(t, "d", "a", "x"))
			is := got.GetOverallCode().String()
			if err != nil {
				is = "error"
			}
			if is != tt.first {
				t.Errorf("%s, %v; want %s", is, err, tt.first)
			}
			if err != nil && strings.Contains(err.Error(), "127.0.0.1:1") {
				t.Errorf("a client is told the address of Redis: %v", err)
			}
			eventually(t, "readiness",
				func() bool { code, _ := p.get("admin", "/readyz"); return code == tt.ready })
			if all := p.out.String() + p.err.String(); strings.Contains(all, "secret") {
				t.Errorf("the password is shown: %s", all)
			}
		})
	}
}
