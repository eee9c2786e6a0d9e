package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/proof/pipes"
)

// site is a http.Server of the API, with a Front or without.
type site struct {
	*pipes.Listener
	front    *Front       // or nil
	answered atomic.Int64 // by the Front
	shutdown func(context.Context) error
	draining bool
}

// open serves the API until the test ends.
func open(t *testing.T, hasFront bool, o Options) *site {
	t.Helper()
	api := start(t, o)
	s := &site{Listener: pipes.New()}
	server := &http.Server{
		Handler: api, ReadTimeout: 20 * time.Second, IdleTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	var l net.Listener = s.Listener
	if hasFront {
		s.front = api.Front(FrontOptions{
			Listener: l, Idle: time.Minute, Patience: 20 * time.Second,
			IsDraining: func() bool { return s.draining },
			Served:     func(int) { s.answered.Add(1) },
		})
		l = s.front
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	s.shutdown = func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if s.front != nil {
			err = errors.Join(err, s.front.Shutdown(ctx))
		}
		return err
	}
	t.Cleanup(func() {
		must.Report(t, s.shutdown(context.Background()))
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

// answers returns what a client is told that sends pieces of bytes, and then waits for the end.
func (s *site) answers(pieces ...string) (all []string) {
	c, sent := s.Dial(), make(chan struct{})
	defer func() {
		_ = c.Close()
		<-sent
	}()
	go func() {
		defer close(sent)
		for _, p := range pieces {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	in := bufio.NewReader(c)
	for {
		if _, err := in.Peek(1); err != nil {
			return all
		}
		all = append(all, response(in))
		if strings.HasPrefix(all[len(all)-1], "wrong: ") {
			return all
		}
	}
}

// response reads an answer. Its text begins with the status.
func response(in *bufio.Reader) string {
	w, err := http.ReadResponse(in, nil)
	if err != nil {
		return "wrong: " + err.Error()
	}
	body, err := io.ReadAll(w.Body)
	return fmt.Sprintf("%s %v %v %v %s %v", w.Status, w.Header, w.Close, w.ContentLength, body, errors.Join(err, w.Body.Close()))
}

// bothAnswer returns what a client is told with a Front and without, at the same time.
func bothAnswer(t *testing.T, o Options, pieces ...string) (with *site, got, want []string) {
	t.Helper()
	with, without := open(t, true, o), open(t, false, o)
	var group sync.WaitGroup
	group.Go(func() { got = with.answers(pieces...) })
	group.Go(func() { want = without.answers(pieces...) })
	group.Wait()
	return with, got, want
}

// asking is a request to /v1/allow with more headers, each of which ends a line.
func asking(body string, headers ...string) string {
	return "POST /v1/allow HTTP/1.1\r\nHost: limits:8080\r\n" + strings.Join(headers, "") +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

const plain = `{"limit":2,"window":"1m","key":"k"}`

// frontCases are what clients send, and how many of it the Front answers.
var frontCases = []struct {
	name   string
	pieces []string
	quick  int
}{
	{"plain", []string{asking(plain)}, 1},
	{"headers of clients", []string{asking(plain, "Content-Type: application/json\r\n", "User-Agent: test/1.0\r\n",
		"accept: */*\r\n", "connection:Keep-Alive \r\n", "X-Forwarded-For: 203.0.113.7\r\n", "Empty:\r\n")}, 1},
	{"three, of which one is denied", []string{asking(plain), asking(plain), asking(plain)}, 3},
	{"a pipeline", []string{asking(plain) + asking(plain) + asking(plain)}, 3},
	{"byte by byte", strings.Split(asking(plain)+asking(plain), ""), 2},
	{"a policy", []string{asking(`{"policy":"example","key":"k"}`)}, 1},
	{"a look", []string{asking(`{"policy":"example","key":"k","peek":true,"cost":0}`)}, 1},
	{"an unknown policy", []string{asking(`{"policy":"other","key":"k"}`), asking(plain)}, 2},
	{"a wrong key", []string{asking(`{"policy":"example","key":""}`)}, 1},
	{"a wrong window", []string{asking(`{"limit":1,"window":"1ns","key":"k"}`)}, 1},
	{"a cost of 0", []string{asking(`{"limit":1,"window":"1s","key":"k","cost":0}`), asking(plain)}, 0},
	{"an escape", []string{asking(`{"policy":"example","key":"\u006b"}`)}, 0},
	{"an unknown field", []string{asking(`{"policy":"example","keys":"k"}`)}, 0},
	{"no JSON", []string{asking(`{`), asking(plain)}, 0},
	{"no body", []string{asking("")}, 0},
	{"a long body", []string{asking(`{"policy":"example","key":"` + strings.Repeat("k", 4000) + `"}`)}, 0},
	{"a longer body", []string{asking(strings.Repeat(" ", 17<<10))}, 0},
	{"a long header", []string{asking(plain, "X: "+strings.Repeat("x", 5000)+"\r\n")}, 0},
	{"another path after it", []string{asking(plain), "GET /openapi.yaml HTTP/1.1\r\nHost: h\r\n\r\n", asking(plain)}, 1},
	{"another path", []string{"GET /v1/usage?limit=1&window=1s&key=k HTTP/1.1\r\nHost: h\r\n\r\n"}, 0},
	{"a query", []string{"POST /v1/allow?x HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\n" + plain}, 0},
	{"HTTP/1.0", []string{"POST /v1/allow HTTP/1.0\r\nHost: h\r\nContent-Length: 35\r\n\r\n" + plain}, 0},
	{"close", []string{asking(plain, "Connection: close\r\n"), asking(plain)}, 0},
	{"expect", []string{asking(plain, "Expect: 100-continue\r\n")}, 0},
	{"upgrade", []string{asking(plain, "Connection: upgrade\r\n", "Upgrade: h2c\r\n")}, 0},
	{"chunks", []string{"POST /v1/allow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n" + plain + "\r\n0\r\n\r\n"}, 0},
	{"chunks and a length", []string{asking("0\r\n\r\n"+asking(plain), "Transfer-Encoding: chunked\r\n")}, 0},
	{"two lengths", []string{asking(plain, "Content-Length: 3\r\n")}, 0},
	{"the same length twice", []string{asking(plain, "Content-Length: 35\r\n")}, 0},
	{"a length with a sign", []string{"POST /v1/allow HTTP/1.1\r\nHost: h\r\nContent-Length: +35\r\n\r\n" + plain}, 0},
	{"no length", []string{"POST /v1/allow HTTP/1.1\r\nHost: h\r\n\r\n", asking(plain)}, 0},
	{"no host", []string{"POST /v1/allow HTTP/1.1\r\nContent-Length: 35\r\n\r\n" + plain}, 0},
	{"two hosts", []string{asking(plain, "Host: other\r\n")}, 0},
	{"an odd host", []string{"POST /v1/allow HTTP/1.1\r\nHost: a b\r\nContent-Length: 35\r\n\r\n" + plain}, 0},
	{"two types", []string{asking(plain, "Content-Type: application/json\r\n", "Content-Type: text/plain\r\n")}, 0},
	{"the type of a form", []string{asking(plain, "Content-Type: application/x-www-form-urlencoded\r\n")}, 0},
	{"another type", []string{asking(plain, "Content-Type: text/plain\r\n")}, 0},
	{"a line that goes on", []string{asking(plain, "X: a\r\n b\r\n")}, 0},
	{"a space before the colon", []string{asking(plain, "Content-Length : 3\r\n")}, 0},
	{"a bare line feed", []string{asking(plain, "X: a\nContent-Length: 3\r\n")}, 0},
	{"bare line feeds", []string{strings.ReplaceAll(asking(plain), "\r", "")}, 0},
	{"an end of bare line feeds", []string{"POST /v1/allow HTTP/1.1\r\nHost: h\n\n"}, 0},
	{"a zero in a header", []string{asking(plain, "X: \x00\r\n")}, 0},
	{"a byte above ASCII", []string{asking(plain, "X: \xff\r\n")}, 0},
	{"no colon", []string{asking(plain, "X\r\n")}, 0},
	{"no name", []string{asking(plain, ": x\r\n")}, 0},
	{"a part", []string{asking(plain), asking(plain)[:60]}, 1},
	{"HTTP/2", []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, 0},
	{"no HTTP", []string{"*1\r\n$4\r\nPING\r\n"}, 0},
	{"nothing", nil, 0},
}

// TestFront: a client is told the same with a Front as without, and the Front answers what it is for.
func TestFront(t *testing.T) {
	for _, tt := range frontCases {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, o := range []Options{{}, {Tokens: []string{"secret"}}} {
					with, got, want := bothAnswer(t, o, tt.pieces...)
					if !slices.Equal(got, want) {
						t.Errorf("it is told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
					if len(o.Tokens) == 0 && int(with.answered.Load()) != tt.quick {
						t.Errorf("the Front answers %d requests, want %d", with.answered.Load(), tt.quick)
					}
				}
			})
		})
	}
}

// TestFrontTokens: a request with the token is answered by the Front, one without is refused.
func TestFrontTokens(t *testing.T) {
	for _, tt := range []struct {
		header string
		quick  int
	}{
		{"Authorization: Bearer secret\r\n", 1},
		{"authorization:  bearer  secret \r\n", 1},
		{"Authorization: Bearer wrong\r\n", 0},
		{"Authorization:\r\nAuthorization: Bearer secret\r\n", 0},
		{"Authorization: Basic secret\r\n", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := Options{Tokens: []string{"other", "secret"}}
			with, got, want := bothAnswer(t, o, asking(plain, tt.header))
			if !slices.Equal(got, want) || int(with.answered.Load()) != tt.quick {
				t.Errorf("%q: %q by %d, want %q by %d", tt.header, got, with.answered.Load(), want, tt.quick)
			}
		})
	}
}

// sameAnswers checks that a client is told the same with a Front as without.
func sameAnswers(t *testing.T, sent string, cut int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		at := max(0, min(cut, len(sent)))
		began := time.Now()
		_, got, want := bothAnswer(t, Options{}, sent[:at], sent[at:])
		if time.Since(began) > 20*time.Second { // net/http may answer a part of a request when its time has passed
			withoutLast := func(all []string, n int) []string {
				if len(all) == n+1 && all[n][0] == '4' {
					return all[:n]
				}
				return all
			}
			got, want = withoutLast(got, len(want)), withoutLast(want, len(got))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: told\n%s\nwant\n%s", sent, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// FuzzFront: whatever a client sends, it is told the same with a Front as without.
func FuzzFront(f *testing.F) {
	for _, tt := range frontCases {
		if sent := strings.Join(tt.pieces, ""); len(sent) < 1000 {
			f.Add(sent, 60)
		}
	}
	f.Fuzz(sameAnswers)
}

// TestFrontByChance: so it is with requests that are changed by chance.
func TestFrontByChance(t *testing.T) {
	const bytes = "\r\n :,\t\x000123456789+{}\"xP"
	first := explore.Seed(t)
	for i := range explore.Runs(100, 10_000) {
		seed := first + uint64(i)
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // no secret
		one := func() string { return strings.Join(frontCases[random.IntN(len(frontCases))].pieces, "") }
		sent := []byte(one())
		for range 1 + random.IntN(3) {
			at := random.IntN(len(sent) + 1)
			to := min(len(sent), at+random.IntN(3))
			var with []byte
			switch random.IntN(3) {
			case 0:
				with = []byte{bytes[random.IntN(len(bytes))]}
			case 1:
				with = []byte(one())
				from := random.IntN(len(with) + 1)
				with = with[from:min(len(with), from+random.IntN(60))]
			}
			sent = slices.Replace(sent, at, to, with...)
		}
		sameAnswers(t, string(sent), random.IntN(len(sent)+1))
		if t.Failed() {
			t.Fatalf("of seed %d", seed)
		}
	}
}

// TestFrontTimes: a client that does not end a request is cut, also if it sends a byte of it every second,
// and so is one that reads no answer, or is idle.
func TestFrontTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, true, Options{})
		var alive [4]atomic.Bool
		living := func() (all []int) {
			synctest.Wait()
			for i := range alive {
				if alive[i].Load() {
					all = append(all, i)
				}
			}
			return all
		}
		for i := range alive {
			c := s.Dial()
			t.Cleanup(func() { _ = c.Close() })
			alive[i].Store(true)
			go func() {
				switch i {
				case 0: // sends nothing
					_, _ = io.Copy(io.Discard, c)
				case 1: // byte by byte
					for n := 0; ; n++ {
						if _, err := io.WriteString(c, asking(plain)[n:n+1]); err != nil {
							break
						}
						time.Sleep(time.Second)
					}
				case 2: // reads no answer
					_, _ = io.WriteString(c, asking(plain))
					time.Sleep(22 * time.Second)
					if _, err := c.Read(make([]byte, 1)); err == nil {
						t.Error("the answer waits for a client that does not read")
					}
				case 3: // asks once
					go func() { _, _ = io.WriteString(c, asking(plain)) }()
					_, _ = io.Copy(io.Discard, c)
				}
				alive[i].Store(false)
			}()
		}
		time.Sleep(25 * time.Second)
		if all := living(); !slices.Equal(all, []int{3}) {
			t.Errorf("after 25s: %v, want 3 alone", all)
		}
		time.Sleep(40 * time.Second)
		if all := living(); len(all) > 0 {
			t.Errorf("after a minute: %v", all)
		}
	})
}

// TestFrontShutdown: when the server ends, it closes each connection that has no request, also one that never
// had any. A request that has begun is answered.
func TestFrontShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, true, Options{})
		fresh, idle, busy := s.Dial(), s.Dial(), s.Dial()
		go func() { _, _ = io.WriteString(idle, asking(plain)) }()
		in := bufio.NewReader(idle)
		if told := response(in); !strings.HasPrefix(told, "200 OK ") {
			t.Fatal(told)
		}
		_, _ = io.WriteString(busy, asking(plain))
		synctest.Wait() // its answer is on the way
		ended := make(chan error)
		go func() { ended <- s.shutdown(context.Background()) }()
		for name, c := range map[string]io.Reader{"fresh": fresh, "idle": in} {
			if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
				t.Errorf("%s: %q, %v", name, rest, err)
			}
		}
		if all, err := io.ReadAll(busy); err != nil || !bytes.HasPrefix(all, []byte("HTTP/1.1 200 OK\r\n")) {
			t.Errorf("busy: %q, %v", all, err)
		}
		must.Report(t, <-ended)
		if _, err := s.front.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept afterwards: %v", err)
		}
	})
}

// TestFrontDrain: while the server drains, the answer says that the connection ends, and it does.
func TestFrontDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, true, Options{})
		s.draining = true
		began := time.Now()
		all := s.answers(asking(plain), asking(plain))
		if len(all) != 1 || !strings.Contains(all[0], " true 60 ") || time.Since(began) > time.Second {
			t.Errorf("after %v: %q", time.Since(began), all)
		}
	})
}

// TestFrontCut: what is not answered when the patience of Shutdown ends is cut.
func TestFrontCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, true, Options{})
		deaf := s.Dial()
		defer deaf.Close() //nolint:errcheck // it is cut
		_, _ = io.WriteString(deaf, asking(plain))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
	})
}
