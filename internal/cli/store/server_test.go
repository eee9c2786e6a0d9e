package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/trypema/trypema/internal/proof/leak"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/redislimit"
)

func TestMain(m *testing.M) { leak.Main(m) }

// to is the flags for a server at a URL.
func to(url string) Flags { return Flags{Provider: "redis", Redis: &url, Patience: time.Minute} }

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	must.Report(t, c.Close())
}

func TestLocalNeedsNoServer(t *testing.T) {
	s, err := Flags{Provider: "local"}.Open(t.Context(), time.Second)
	if s != nil || err != nil {
		t.Fatalf("got %v, %v", s, err)
	}
	if s.Provider() != Local || s.Instances() != 1 || s.Where(Local, time.Second) != Here || s.Embedded() ||
		s.Watch(t.Context())() != nil {
		t.Error("no server is one")
	}
	closed(t, s)
}

func TestLimits(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireUserAuth("user", "secret")
	one := "redis://user:secret@" + m.Addr()
	// the second is taken for a Cluster, as which miniredis can pass
	for _, url := range []string{one + "/2", one + "," + m.Addr()} {
		for _, client := range []string{GoRedis, Rueidis} {
			t.Run(strings.TrimPrefix(url, one)+client, func(t *testing.T) {
				f := to(url)
				f.Client = &client
				s, err := f.Open(t.Context(), time.Second)
				must.OK(t, err)
				defer closed(t, s)
				w := s.Where(Redis, time.Second)
				if w.Provider != Redis || w.Instances != 1 || w.SyncInterval != 0 || w.Client != client ||
					!strings.Contains(w.Server, m.Addr()) || strings.Contains(w.Server, "secret") || s.Embedded() {
					t.Errorf("where is %+v", w)
				}
				a, b := limits(t, s), limits(t, s)
				defer closed(t, a)
				defer closed(t, b)
				for i, l := range []*Limits{a, a, b} { // b has keys of its own
					d, err := l.Instances[0].Absolute().Allow(t.Context(), "k", trypema.PerSecond(1))
					if err != nil || d.Fallback || d.Allowed != (i != 1) {
						t.Errorf("call %d: %+v, %v", i, d, err)
					}
				}
			})
		}
	}
	if keys := len(m.DB(0).Keys()) + len(m.DB(2).Keys()); keys != 8 {
		t.Errorf("%d keys, want 8", keys)
	}
}

func limits(t *testing.T, s *Server) *Limits {
	t.Helper()
	p, err := s.Limits(Redis,
		redislimit.Options{Options: trypema.Options{Window: time.Second}, Timeout: s.Patience()})
	must.OK(t, err)
	return p
}

// TestInstances: they share the limit, by keys of their own. How much of it Hybrid uses depends on how long
// calls take, as leases end; package hybridlimit holds that in virtual time.
func TestInstances(t *testing.T) {
	const c = 60
	for _, provider := range []string{Redis, Hybrid} {
		t.Run(provider, func(t *testing.T) {
			s, err := Flags{Provider: provider, Instances: ptr(3),
				SyncInterval: ptr(20 * time.Millisecond)}.Open(t.Context(), time.Hour)
			if provider == Redis {
				if err == nil || !strings.Contains(err.Error(), "--sync-interval") {
					t.Errorf("error is %v", err)
				}
				s, err = Flags{Provider: provider, Instances: ptr(3)}.Open(t.Context(), time.Hour)
			}
			must.OK(t, err)
			defer closed(t, s)
			if w := s.Where(provider, time.Hour); w.Instances != 3 || (w.SyncInterval == 20) != (provider == Hybrid) {
				t.Errorf("where is %+v", w)
			}
			l, err := s.Limits(provider,
				redislimit.Options{Options: trypema.Options{Window: time.Hour}, Timeout: s.Patience()})
			must.OK(t, err)
			defer closed(t, l)
			admitted := uint64(0)
			for i := range 2 * c {
				d, err := l.Instances[i%3].Absolute().Allow(t.Context(), "k", trypema.PerHour(c))
				if err != nil || d.Fallback {
					t.Fatalf("%+v, %v", d, err)
				}
				if d.Allowed {
					admitted++
				}
			}
			if admitted > c || admitted == 0 || provider == Redis && admitted < c {
				t.Errorf("%d admitted, of at most %d", admitted, c)
			}
			must.Report(t, l.Flush(t.Context()))
			for i, l := range l.Instances {
				u, err := l.Absolute().Usage(t.Context(), "k", trypema.PerHour(c))
				if err != nil || u.Total != admitted {
					t.Errorf("instance %d: %+v, %v, want %d", i, u, err, admitted)
				}
			}
		})
	}
}

// TestIntervalFitsTheWindow: in a measurement whose window is shorter than the interval that was asked for.
func TestIntervalFitsTheWindow(t *testing.T) {
	s := &Server{provider: Hybrid, interval: time.Second, instances: 1}
	for _, tt := range []struct {
		window time.Duration
		want   float64
	}{{time.Millisecond, 1}, {500 * time.Millisecond, 500}, {time.Second, 1000}, {time.Hour, 1000}} {
		if got := s.Where(Hybrid, tt.window).SyncInterval; got != tt.want {
			t.Errorf("window %v: settled every %vms, want %v", tt.window, got, tt.want)
		}
	}
}

func TestWrongOptionsLeaveNothingOpen(t *testing.T) {
	for _, client := range []string{GoRedis, Rueidis} {
		s, err := Flags{Provider: "redis", Client: &client}.Open(t.Context(), time.Second)
		must.OK(t, err)
		for _, provider := range []string{Redis, Hybrid} {
			if _, err := s.Limits(provider, redislimit.Options{Timeout: 1}); err == nil {
				t.Error("no error")
			}
		}
		closed(t, s)
	}
}

func TestServerThatCanNotBeUsed(t *testing.T) {
	guarded := miniredis.RunT(t)
	guarded.RequireAuth("secret")
	strange := miniredis.NewMiniRedis()
	must.OK(t, strange.StartTLS(&tls.Config{Certificates: []tls.Certificate{certificate(t)}}))
	t.Cleanup(strange.Close)
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.OK(t, err)
	t.Cleanup(func() { closed(t, silent) })

	const soon, ever = 100 * time.Millisecond, time.Hour
	tests := []struct {
		name, url, says string
		within          time.Duration
	}{
		{"nobody listens", "redis://:wrong@127.0.0.1:1", "connection refused", ever},
		{"nobody answers", "redis://:wrong@" + silent.Addr().String(), "no answer within 100ms", soon},
		{"nobody answers to TLS", "rediss://:wrong@" + silent.Addr().String(), "no answer within 100ms", soon},
		{"no password", "redis://" + guarded.Addr(), "NOAUTH", ever},
		{"wrong password", "redis://:wrong@" + guarded.Addr(), "WRONGPASS", ever},
		{"wrong user", "redis://u:wrong@" + guarded.Addr(), "WRONGPASS", ever},
		{"certificate", "rediss://:wrong@" + strange.Addr(), "certificate", ever},
		{"no Cluster", "redis://127.0.0.1:1,127.0.0.1:2", "connection refused", ever},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := to(tt.url)
			f.Patience = tt.within
			s, err := f.Open(t.Context(), time.Second)
			if s != nil || err == nil {
				t.Fatalf("got %v, %v", s, err)
			}
			a, _ := parse(tt.url)
			text := err.Error()
			if !strings.HasPrefix(text, "--redis is "+a.String()+", which cannot be used: ") ||
				!strings.Contains(text, tt.says) {
				t.Errorf("error is %q, which does not say %q", text, tt.says)
			}
			if strings.Contains(text, "wrong") || strings.Contains(text, "\n") {
				t.Errorf("error shows the password, or has several lines: %q", text)
			}
		})
	}
}

// certificate is one that nobody has signed but its owner.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must.OK(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must.OK(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := to("redis://127.0.0.1:1").Open(ctx, time.Second); s != nil || err == nil {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestEmbeddedTime: in the embedded server a key lives for its time to live at least, and for about twice
// that at most.
func TestEmbeddedTime(t *testing.T) {
	const life = 200 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		e := newEmbedded(life)
		defer e.close()
		born := make(map[string]time.Time)
		for i := range 40 { // at many moments between two looks at the keys
			name := string(rune('a' + i))
			must.OK(t, e.redis.Set(name, "1"))
			e.redis.SetTTL(name, life)
			born[name] = time.Now()
			time.Sleep(5 * time.Millisecond)
			gone(t, e, born, life)
		}
		for len(born) > 0 {
			time.Sleep(time.Millisecond)
			gone(t, e, born, life)
		}
	})
}

// gone looks at how long the keys lived that are no longer there, and forgets them.
func gone(t *testing.T, e *embedded, born map[string]time.Time, life time.Duration) {
	t.Helper()
	for name, at := range born {
		if e.redis.Exists(name) {
			if lives := time.Since(at); lives > 3*life {
				t.Fatalf("key %s still lives after %v, its time to live was %v", name, lives, life)
			}
			continue
		}
		if lived := time.Since(at); lived < life {
			t.Errorf("key %s lived for %v, its time to live was %v", name, lived, life)
		}
		delete(born, name)
	}
}

// TestEmbeddedClock: the time that scripts see in the embedded server is the real one. It does not tell what
// it does.
func TestEmbeddedClock(t *testing.T) {
	s, err := Flags{Provider: "redis"}.Open(t.Context(), time.Second)
	must.OK(t, err)
	defer closed(t, s)
	if !s.Embedded() || s.Watch(t.Context())() != nil {
		t.Error("an embedded server that tells what it does")
	}
	client := s.GoRedis()
	defer closed(t, client)
	before := time.Now().Truncate(time.Microsecond)
	said, err := client.Eval(t.Context(), "return redis.call('TIME')", nil).Int64Slice()
	if err != nil || len(said) != 2 {
		t.Fatalf("%v, %v", said, err)
	}
	if now := time.Unix(said[0], 1000*said[1]); now.Before(before) || now.After(time.Now()) {
		t.Errorf("a script sees %v at %v", now, before)
	}
}
