package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/resp"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rest"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rls"
	"github.com/trypema/trypema/internal/cli/screen"
	"github.com/trypema/trypema/redislimit"
)

// patience is how long requests may take to end after the drain.
const patience = 10 * time.Second

// server is trypema serve at work.
type server struct {
	command *Command
	logger  *slog.Logger
	metrics *metrics
	store   *store
	engine  *engine.Engine
	loader  *loader
	gate    *gate
	tokens  []string

	// Signals are taken before anything says that the server is there: until then SIGHUP ends the process.
	interrupt, hangUp chan os.Signal

	isDraining   atomic.Bool
	certificates []*certificate
	services     []*service // in the order in which they end
	grpc         *rls.Server
}

// httpPatience is how long a client of HTTP may take to send a request, httpIdle until the next.
const (
	httpPatience = 20 * time.Second
	httpIdle     = 2 * time.Minute
)

// service is a listener and what serves it.
type service struct {
	name     string // of its flag
	listener *bounded
	secure   bool
	serve    func(net.Listener) error
	shutdown func(context.Context) error
}

// address is where the service is reached.
func (s *service) address() string {
	if a := s.listener.Addr(); a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return s.listener.Addr().String()
}

// newServer reads the configuration and opens the listeners.
func (c *Command) newServer(
	ctx context.Context, logger *slog.Logger, tokens []string,
) (_ *server, err error) {
	s := &server{
		command: c,
		logger:  logger,
		metrics: newMetrics(),
		gate:    &gate{most: int64(c.MaxConns)},
		tokens:  tokens,
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.store, err = c.open(
		trypema.Options{Window: time.Minute, Observer: s.metrics.limits, Name: "serve"},
		func(h redislimit.Health) {
			if h.Available {
				logger.Info("Redis is available")
				return
			}
			logger.Error("Redis is unavailable", "err", h.Err, "decides", c.OnFailure)
		},
	)
	if err != nil {
		s.store = nil
		return nil, err
	}
	s.engine = engine.New(s.store, engine.Options{
		Shadow: c.Shadow, RefuseFallback: c.Redis != "" && c.OnFailure == failError,
		Observer: s.metrics.limits, Counts: c.EnvoyMetrics,
	})
	if c.EnvoyMetrics {
		s.metrics.addEnvoy(s.engine)
	}
	s.loader = &loader{
		engine: s.engine,
		paths:  c.Config,
		merge:  c.MergeDomains,
		logger: logger,
		loaded: s.metrics.configured,
	}
	if c.XDS == "" {
		if err := s.loader.load(); err != nil {
			return nil, err
		}
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	s.metrics.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "trypema_serve_connections_refused_total", Help: "Number of connections that were closed because there were too many.",
	}, func() float64 { return float64(s.gate.refused.Load()) }))
	for _, one := range s.services {
		s.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "trypema_serve_connections", Help: "Open connections.",
			ConstLabels: prometheus.Labels{"listener": one.name},
		}, func() float64 { return float64(one.listener.open.Load()) }))
	}
	return s, nil
}

// open opens the listeners that are on.
func (s *server) open(ctx context.Context) error {
	c := s.command
	envoy := rls.New(rls.Options{
		Engine: s.engine, Headers: c.RatelimitHeaders, Metadata: c.DynamicMetadata, Logger: s.logger, Served: s.metrics.rls(),
	})
	for _, one := range []struct {
		name, address string
		tls           TLS
		make          func(*service, *certificate) error
	}{
		{"resp", c.RESP, c.RESPTLS, s.openRESP},
		{"http", c.HTTP, c.HTTPTLS, func(to *service, cert *certificate) error { return s.openHTTP(to, cert, envoy) }},
		{"grpc", c.GRPC, c.GRPCTLS, func(to *service, cert *certificate) error { return s.openGRPC(to, cert, envoy) }},
		{"admin", c.Admin, c.AdminTLS, s.openAdmin},
	} {
		if one.address == "" {
			continue
		}
		var cert *certificate
		if one.tls.isOn() {
			protocols := map[string][]string{"grpc": {"h2"}, "http": {"h2", "http/1.1"}, "admin": {"h2", "http/1.1"}}[one.name]
			var err error
			if cert, err = newCertificate(one.tls, protocols...); err != nil {
				return fmt.Errorf("--%s-cert: %w", one.name, err)
			}
			s.certificates = append(s.certificates, cert)
		}
		l, err := listen(ctx, one.address)
		if err != nil {
			return fmt.Errorf("--%s is %s: %w", one.name, one.address, err)
		}
		to := &service{name: one.name, listener: &bounded{Listener: l, gate: s.gate}, secure: cert != nil}
		s.services = append(s.services, to)
		if err := one.make(to, cert); err != nil {
			return err
		}
		if !isLocal(l.Addr()) && one.name != "admin" && len(s.tokens) == 0 && !one.tls.isOn() {
			s.logger.Warn("a listener that is not on loopback has neither TLS nor a token", "listener",
				one.name, "address", to.address())
		}
	}
	return nil
}

func isLocal(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err != nil || ap.Addr().IsLoopback()
}

func (s *server) openRESP(to *service, cert *certificate) error {
	type answer struct {
		command string
		failed  bool
	}
	counters := make(map[answer]prometheus.Counter)
	for _, name := range append(resp.Commands(), "unknown") {
		counters[answer{name, false}] = s.metrics.requests.WithLabelValues("resp", name, "answered")
		counters[answer{name, true}] = s.metrics.requests.WithLabelValues("resp", name, "wrong")
	}
	server := resp.New(resp.Options{
		Engine: s.engine, Tokens: s.tokens, Idle: s.command.Idle, Logger: s.logger,
		Served: func(command string, failed bool) { counters[answer{command, failed}].Inc() },
	})
	to.serve = func(l net.Listener) error {
		if cert != nil {
			l = tls.NewListener(l, cert.server())
		}
		return server.Serve(l)
	}
	to.shutdown = server.Shutdown
	return nil
}

// httpServer has the bounds of all that is served by HTTP. What inFront returns, if there is one, is in front
// of it unless there is TLS.
func (s *server) httpServer(
	to *service, cert *certificate, h http.Handler, inFront func(net.Listener) *rest.Front,
) {
	// While it drains, clients are told to connect again elsewhere: a connection that ends while they use it
	// is an error for them.
	telling := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isDraining.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
	server := &http.Server{
		Handler: telling, ReadTimeout: httpPatience, WriteTimeout: 2 * time.Minute, // of headers, too
		IdleTimeout: httpIdle, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug), // faults of clients
	}
	var isServing atomic.Bool
	var front atomic.Pointer[rest.Front]
	served := make(chan struct{})
	to.serve = func(l net.Listener) (err error) {
		isServing.Store(true)
		defer close(served)
		if cert != nil {
			server.TLSConfig = cert.server()
			err = server.ServeTLS(l, "", "")
		} else {
			server.Protocols = new(http.Protocols)
			server.Protocols.SetHTTP1(true)
			server.Protocols.SetUnencryptedHTTP2(true)
			if inFront != nil {
				f := inFront(l)
				front.Store(f)
				defer f.Close() //nolint:errcheck // it is closed already, or the listener has failed
				l = f
			}
			err = server.Serve(l)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	}
	to.shutdown = func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if err == nil && isServing.Load() {
			// The first Shutdown does not know a connection that was accepted while the listener closed.
			select {
			case <-served:
			case <-ctx.Done():
			}
			err = server.Shutdown(ctx)
		}
		if f := front.Load(); f != nil {
			err = errors.Join(err, f.Shutdown(ctx))
		}
		if err != nil {
			return errors.Join(err, server.Close())
		}
		return nil
	}
}

func (s *server) openHTTP(to *service, cert *certificate, json http.Handler) error {
	o, _ := s.command.auth() // it was checked
	o.Engine, o.Tokens, o.Logger = s.engine, s.tokens, s.logger
	api, err := rest.New(o)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /json", json)
	mux.HandleFunc("GET /healthcheck", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError) // as envoyproxy/ratelimit has it
			return
		}
		fmt.Fprintln(w, "OK")
	})
	mux.Handle("/", s.counted(api))
	allow := s.metrics.counters("http", "allow")
	s.httpServer(to, cert, mux, func(l net.Listener) *rest.Front {
		return api.Front(rest.FrontOptions{
			Listener: l, Idle: httpIdle, Patience: httpPatience, IsDraining: s.isDraining.Load,
			Served: func(status int) { allow.counted(status, false) },
		})
	})
	return nil
}

// counted counts what a handler answers.
func (s *server) counted(h http.Handler) http.Handler {
	all := make(map[string]*counters)
	for _, method := range []string{"allow", "reserve", "commit", "usage", "auth", "other"} {
		all[method] = s.metrics.counters("http", method)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := "other"
		if name, ok := strings.CutPrefix(r.URL.Path, "/v1/"); ok && all[name] != nil {
			method = name
		} else if strings.HasPrefix(r.URL.Path, "/auth/") {
			method = "auth"
		}
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(seen, r)
		all[method].counted(seen.status, method == "auth")
	})
}

// counted counts an answer of HTTP, whose status may say that it is a denial.
func (c *counters) counted(status int, denies bool) {
	switch {
	case status < 400:
		c.allowed.Inc()
	case status >= 500:
		c.failed.Inc()
	case denies && (status == http.StatusTooManyRequests || status == http.StatusForbidden):
		c.denied.Inc()
	default:
		c.wrong.Inc()
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *server) openGRPC(to *service, cert *certificate, envoy *rls.Service) error {
	var secure []grpc.ServerOption
	if cert != nil {
		secure = append(secure, grpc.Creds(credentials.NewTLS(cert.server())))
	}
	server := rls.NewServer(envoy, s.command.MaxAge, secure...)
	s.grpc = server
	to.serve = server.Serve
	to.shutdown = func(ctx context.Context) error {
		done := make(chan struct{})
		go func() {
			server.GracefulStop()
			close(done)
		}()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			server.Stop()
			<-done
			return ctx.Err()
		}
	}
	return nil
}

func (s *server) openAdmin(to *service, cert *certificate) error {
	s.httpServer(to, cert, s.admin(), nil)
	return nil
}

// ready returns why no requests should come here, or nil.
func (s *server) ready() error {
	switch {
	case s.isDraining.Load():
		return errors.New("draining")
	case s.engine.Set() == nil:
		return engine.ErrNotLoaded
	case s.store.isGone.Load() && s.needsRedis():
		return errors.New("Redis is unavailable, and --on-failure is " + s.command.OnFailure)
	}
	return nil
}

// takeSignals has signals go to the server until stop is called.
func (s *server) takeSignals() (stop func()) {
	s.interrupt, s.hangUp = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(s.interrupt, os.Interrupt)
	signal.Notify(s.hangUp, syscall.SIGHUP)
	return func() {
		signal.Stop(s.interrupt)
		signal.Stop(s.hangUp)
	}
}

// needsRedis reports whether no request passes without Redis.
func (s *server) needsRedis() bool {
	return s.command.OnFailure == failClosed || s.command.OnFailure == failError
}

// run serves until the context ends, and then drains.
func (s *server) run(ctx context.Context) error {
	reserved := reserveHeap()
	defer runtime.KeepAlive(reserved)
	failed := make(chan error, len(s.services))
	var group sync.WaitGroup
	for _, one := range s.services {
		group.Go(func() {
			if err := one.serve(one.listener); err != nil {
				failed <- fmt.Errorf("--%s: %w", one.name, err)
			}
		})
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	every := func(pause time.Duration, do func()) {
		group.Go(func() {
			ticker := time.NewTicker(pause)
			defer ticker.Stop()
			for background.Err() == nil {
				do()
				select {
				case <-background.Done():
				case <-ticker.C:
				}
			}
		})
	}
	if s.command.Watch > 0 {
		every(s.command.Watch, func() { s.loader.watch(s.certificates) })
	}
	if s.command.XDS != "" {
		group.Go(func() { s.subscribe(background) })
	}
	if s.grpc != nil { // its health says what /readyz says
		every(250*time.Millisecond, func() { s.grpc.SetServing(s.ready() == nil) })
	}
	if s.store.client != nil {
		every(time.Second, func() { s.store.probe(background, max(s.command.RedisTimeout, time.Second)) })
	}

	var err error
	for waiting := true; waiting; {
		select {
		case <-s.hangUp:
			s.logger.Info("SIGHUP: the configuration is read again")
			if s.command.XDS == "" {
				_ = s.loader.load() // it was logged
			}
			reloadAll(s.certificates, s.logger)
		case err = <-failed:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	s.isDraining.Store(true)
	if s.grpc != nil {
		s.grpc.SetServing(false)
	}
	drain := s.command.Drain
	select {
	case <-s.interrupt:
		drain = 0
	default:
	}
	if err == nil && drain > 0 {
		s.logger.Info("draining", "for", drain)
		select {
		case <-time.After(drain):
		case <-s.interrupt:
		case err = <-failed:
		}
	}
	cancel()
	s.close()
	group.Wait()
	s.logger.Info("stopped")
	return err
}

// close ends the services, lets their requests be answered, and gives leases back.
func (s *server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, one := range s.services {
		if one.shutdown != nil {
			if err := one.shutdown(ctx); err != nil {
				s.logger.Warn("requests were cut off", "listener", one.name, "err", err)
			}
		}
		_ = one.listener.Close() // if it was not served
	}
	if s.engine != nil {
		s.engine.Close()
	}
	if s.store != nil {
		if err := s.store.close(); err != nil {
			s.logger.Warn("leases could not be given back; they age out", "err", err)
		}
	}
}

// greet says where the services are and, for the example, what to try.
func (s *server) greet(out screen.Streams) {
	c := s.command
	at := make(map[string]*service)
	var b strings.Builder
	if len(c.Config) == 0 && c.XDS == "" {
		fmt.Fprintf(&b,
			"trypema serves an example, %s. --config PATH brings your own; --help tells more.\n\n",
			s.store.name)
	} else {
		fmt.Fprintf(&b, "trypema serves, %s.\n\n", s.store.name)
	}
	for _, one := range []struct{ name, what string }{
		{"grpc", "Envoy rate limit service"}, {"http", "/v1, /auth/POLICY, /json"},
		{"resp", "CL.THROTTLE, TRYPEMA.*"}, {"admin", "/metrics, /healthz, /readyz, /rlconfig"},
	} {
		for _, service := range s.services {
			if service.name == one.name {
				at[one.name] = service
				secure := ""
				if service.secure {
					secure = ", by TLS"
				}
				fmt.Fprintf(&b, "  %-6s %-22s %s%s\n", one.name, service.address(), one.what, secure)
			}
		}
	}
	if try := tries(at); len(c.Config) == 0 && c.XDS == "" && len(s.tokens) == 0 && len(try) > 0 {
		b.WriteString("\nTry:\n")
		for _, line := range try {
			b.WriteString("  " + line + "\n")
		}
	}
	b.WriteByte('\n')
	fmt.Fprint(out.Out, b.String())
}

// tries are the commands to try.
func tries(at map[string]*service) (lines []string) {
	plain := func(name string) (host, port string, ok bool) {
		one := at[name]
		if one == nil || one.secure {
			return "", "", false
		}
		host, port, err := net.SplitHostPort(one.address())
		return host, port, err == nil
	}
	const question = `{"domain":"example","descriptors":[{"entries":[{"key":"path","value":"/login"}]}]}`
	if host, port, ok := plain("http"); ok {
		lines = append(lines, "curl -i http://"+net.JoinHostPort(host, port)+"/auth/example")
	}
	if host, port, ok := plain("resp"); ok {
		lines = append(lines, "redis-cli -h "+host+" -p "+port+" CL.THROTTLE user:42 4 5 60")
	}
	_, err := exec.LookPath("grpcurl")
	if host, port, ok := plain("grpc"); ok && err == nil {
		return append(lines, "grpcurl -plaintext -d '"+question+"' "+net.JoinHostPort(host, port)+
			" envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
	}
	if host, port, ok := plain("http"); ok {
		lines = append(lines, "curl -i -d '"+question+"' http://"+net.JoinHostPort(host, port)+"/json")
	}
	return lines
}
