package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/examples/internal/programtest"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/realredis"
	"github.com/trypema/trypema/policyfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// supplier answers without a network.
type supplier struct{}

func (supplier) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	fmt.Fprint(w, "42 EUR")
	return w.Result(), r.Body.Close()
}

// start returns a service on Local, with the limits of plans.yaml.
func start(t *testing.T) *service {
	t.Helper()
	limits := fixture.Local(t, trypema.Options{})
	list, err := policyfile.Load("plans.yaml")
	must.OK(t, err)
	plans := fixture.Policies(t, limits, list...)
	s, err := newService(plans, "http://supplier/", supplier{})
	must.OK(t, err)
	return s
}

// call calls the API from an address.
func (s *service) call(ctx context.Context, address, key, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, http.NoBody).WithContext(ctx)
	r.RemoteAddr = address + ":1234"
	r.Header.Set("X-API-Key", key)
	w := httptest.NewRecorder()
	s.http.ServeHTTP(w, r)
	return w
}

// The comment of the program has the limits that clients are told.
func TestComment(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, line := range regexp.MustCompile(`(?m)^//\tRatelimit: (.*)$`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, line[1])
	}
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		for i := range 21 {
			w := s.call(t.Context(), "192.0.2.1", "key-bob", "GET", "/quote")
			if i == 0 || i == 20 {
				got = append(got, w.Header()["Ratelimit"]...)
			}
		}
		w := s.call(t.Context(), "192.0.2.1", "key-ada", "GET", "/answer?question=what+is+a+needle&max=50")
		got = append(got, w.Header()["Ratelimit"]...)
	})
	if !slices.Equal(got, want) {
		t.Errorf("clients are told %q, the comment has %q", got, want)
	}
}

// The limit by address comes first, so a client that guesses keys is stopped; others are not.
func TestAddressBeforeAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		for i := range 105 {
			want := http.StatusUnauthorized
			if i >= 100 {
				want = http.StatusTooManyRequests
			}
			if w := s.call(t.Context(), "192.0.2.1", "guess", "GET", "/quote"); w.Code != want {
				t.Fatalf("guess %d: %d, want %d", i, w.Code, want)
			}
		}
		w := s.call(t.Context(), "192.0.2.2", "key-ada", "GET", "/quote")
		if w.Code != http.StatusOK || w.Body.String() != "42 EUR" {
			t.Errorf("another address: %d, %q", w.Code, w.Body)
		}
	})
}

// A call counts for its tenant and its user, or for neither. What one user may not do costs the tenant
// nothing.
func TestTenantAndUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		call := func(user string) int {
			time.Sleep(time.Second / 2) // so that the supplier has room, and the address
			return s.call(t.Context(), "192.0.2.1", user, "GET", "/quote").Code
		}
		for i := range 25 {
			want := http.StatusOK
			if i >= 20 {
				want = http.StatusTooManyRequests
			}
			if got := call("key-bob"); got != want {
				t.Errorf("bob, call %d: %d, want %d", i, got, want)
			}
		}
		used, err := s.plans.Usage(t.Context(), "free/tenant", "bits")
		if err != nil || used[0].Total != 20 {
			t.Errorf("the tenant: %+v, %v", used, err)
		}
		if got := call("key-ben"); got != http.StatusOK {
			t.Errorf("ben: %d", got)
		}
	})
}

// Tokens are reserved by an estimate, and charged as they were said.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		left := func() uint64 {
			t.Helper()
			u, err := s.plans.Usage(t.Context(), "free/tokens", "bits")
			must.OK(t, err)
			return u[0].Remaining
		}
		w := s.call(t.Context(), "192.0.2.1", "key-bob", "GET", "/answer?question=what+is+a+needle&max=90")
		if got := strings.Fields(w.Body.String()); w.Code != http.StatusOK || len(got) != 4 || left() != 200-8 {
			t.Errorf("%d, %q, %d tokens left", w.Code, got, left())
		}
		ctx, hangUp := context.WithTimeout(t.Context(), time.Second/20+1)
		defer hangUp()
		s.call(ctx, "192.0.2.1", "key-ben", "GET", "/answer?question=what+is+a+needle")
		if left() != 200-8-5 {
			t.Errorf("after hanging up: %d tokens left", left())
		}
		for range 2 { // both estimates fit, of which little is charged
			w = s.call(t.Context(), "192.0.2.1", "key-bob", "GET", "/answer?question=hello&max=100")
		}
		if w.Code != http.StatusOK || left() != 200-8-5-4 {
			t.Errorf("%d, %d tokens left", w.Code, left())
		}
	})
}

// The worker sends five mails in any second, and what is left when the service ends.
func TestMails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log bytes.Buffer
		done := make(chan bool)
		go func() {
			s.sendMails(ctx, slog.New(slog.NewTextHandler(&log, nil)))
			close(done)
		}()
		for i := range 12 {
			w := s.call(t.Context(), "192.0.2.1", "key-ada", "POST", fmt.Sprint("/mails?to=", i))
			if w.Code != http.StatusAccepted {
				t.Errorf("mail %d: %d", i, w.Code)
			}
		}
		began := time.Now()
		close(s.mails)
		<-done
		if took := time.Since(began); took != 2*time.Second || strings.Count(log.String(), "a mail was sent") != 12 {
			t.Errorf("after %v:\n%s", took, &log)
		}
	})
}

// Calls to the supplier wait for their turn, up to two seconds.
func TestSupplier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		answers := make(chan *httptest.ResponseRecorder)
		for i := range 40 {
			go func() {
				answers <- s.call(t.Context(), fmt.Sprint("192.0.2.", i), "key-ada", "GET", "/quote")
			}()
		}
		codes := map[int]int{}
		for range 40 {
			w := <-answers
			codes[w.Code]++
			if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
		// 10 at once, and 10 a second later; those whose turn comes after two seconds are told so at once.
		if ok := codes[http.StatusOK]; ok < 20 || ok > 30 || ok+codes[http.StatusServiceUnavailable] != 40 {
			t.Errorf("%v", codes)
		}
	})
}

// A file that changes is applied while the service runs; what was used stays.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		text, err := os.ReadFile("plans.yaml")
		must.OK(t, err)
		path := filepath.Join(t.TempDir(), "plans.yaml")
		write := func(text string) {
			t.Helper()
			must.OK(t, os.WriteFile(path, []byte(text), 0o600))
			time.Sleep(5 * time.Second)
		}
		write(string(text))
		go policyfile.Watch(t.Context(), path, time.Second, s.plans.Swap, func(error) {})
		call := func(want int) {
			t.Helper()
			if w := s.call(t.Context(), "192.0.2.1", "key-bob", "GET", "/quote"); w.Code != want {
				t.Errorf("%d, want %d", w.Code, want)
			}
		}
		for range 2 {
			call(http.StatusOK)
		}
		write(strings.Replace(string(text), "user=20/m", "user=2/m", 1))
		call(http.StatusTooManyRequests)
		write("policies: [")
		call(http.StatusTooManyRequests)
		write(string(text))
		call(http.StatusOK)
	})
}

// running is the program, with its addresses.
type running struct {
	api, grpc, metrics string
	stop               func() (status int, stderr string)
}

func launch(t *testing.T, args ...string) running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out, in := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append(args, "--addr", "localhost:0", "--grpc", "localhost:0", "--admin",
			"localhost:0"), in, &stderr)
		_ = in.Close()
	}()
	var r running
	if _, err := fmt.Fscanf(out, "API %s gRPC %s metrics %s\n", &r.api, &r.grpc, &r.metrics); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	r.api, r.grpc = strings.TrimSuffix(r.api, ","), strings.TrimSuffix(r.grpc, ",")
	r.stop = func() (int, string) {
		cancel()
		return <-status, stderr.String()
	}
	return r
}

// get gets a URL by an account.
func get(t *testing.T, client *http.Client, key, url string) (code int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	must.OK(t, err)
	r.Header.Set("X-API-Key", key)
	response, err := client.Do(r)
	must.OK(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	must.OK(t, err)
	return response.StatusCode, string(body)
}

// serves calls all that running instances offer, and reports whether Redis answered in time. The instances
// share their limits if they have one Redis.
func serves(t *testing.T, instances ...running) bool {
	t.Helper()
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	quoted, quote := get(t, client, "key-ada", instances[0].api+"/quote")
	codesOf := map[int]int{}
	for i := range 25 {
		code, _ := get(t, client, "key-bob", instances[i%len(instances)].api+"/answer?question=hi&max=0")
		codesOf[code]++
	}
	conn, err := grpc.NewClient(instances[0].grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must.OK(t, err)
	defer func() { _ = conn.Close() }()
	called := map[string]codes.Code{}
	for _, key := range []string{"key-ada", "guess"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-api-key", key)
		_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		called[key] = status.Code(err)
	}
	slow := codesOf[http.StatusServiceUnavailable] > 0
	for _, r := range instances {
		code, text := get(t, client, "", r.metrics)
		if code != http.StatusOK ||
			!strings.Contains(text, `trypema_policy_decisions_total{outcome="allowed",policy="free/user"`) {
			t.Errorf("metrics: %d\n%s", code, text)
		}
		for line := range strings.Lines(text) {
			slow = slow || strings.HasPrefix(line, "trypema_fallback_decisions_total{") &&
				!strings.HasSuffix(line, " 0\n")
		}
	}
	if slow {
		t.Log("Redis did not answer in time on this machine: the failure policy has decided, and numbers differ")
		return false
	}
	if quoted != http.StatusOK || quote != "42 EUR\n" {
		t.Errorf("a quote: %d, %q", quoted, quote)
	}
	// Bob has 20 calls a minute, of which Hybrid may keep a few on lease at an instance that does not need them.
	// The address has 100 in 10 seconds, of which both providers together ask for 56: the rest is room for what
	// an instance keeps on lease.
	if ok := codesOf[http.StatusOK]; ok > 20 || ok < 10 || ok+codesOf[http.StatusTooManyRequests] != 25 {
		t.Errorf("bob: %v", codesOf)
	}
	for key, want := range map[string]codes.Code{"key-ada": codes.OK, "guess": codes.Unauthenticated} {
		if got := called[key]; got != want {
			t.Errorf("gRPC by %s: %v, want %v", key, got, want)
		}
	}
	return true
}

// The program serves until it is told to end, and ends without an error.
func TestRun(t *testing.T) {
	r := launch(t)
	serves(t, r)
	if code, stderr := r.stop(); code != 0 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

// Two instances on a real Redis share their limits.
func TestOnRedis(t *testing.T) {
	server, err := realredis.Start(t.Context())
	if missing := new(realredis.MissingError); errors.As(err, &missing) {
		t.Skip(missing)
	}
	must.OK(t, err)
	defer func() { _ = server.Close() }()
	for _, provider := range []string{"redis", "hybrid"} {
		args := []string{"--redis", "redis://" + server.Addr(), "--provider", provider}
		one, two := launch(t, args...), launch(t, args...)
		inTime := serves(t, one, two)
		for _, r := range []running{one, two} {
			if code, stderr := r.stop(); code != 0 && inTime {
				t.Errorf("%s: exit status %d: %s", provider, code, stderr)
			}
		}
	}
}

func TestFlags(t *testing.T) {
	test := programtest.Flags(t, run)
	test("--provider none", 1, `saas: --provider is "none"; it must be local, redis or hybrid`)
	test("--provider redis --redis nowhere", 1, "saas: --redis or REDIS_URL must be a URL such as")
	test("--plans none.yaml", 1, "saas: open none.yaml")
	test("--grace long", 2, `invalid value "long" for flag -grace`)
	test("more", 2, `saas: unexpected argument "more"`)
	test("--help", 0, "where the API listens")
}
