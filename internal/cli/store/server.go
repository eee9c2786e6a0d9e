package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/redis/rueidis"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
)

const (
	connectTimeout = 2500 * time.Millisecond

	// The default of go-redis; and for the embedded server, which is part of this process: when it answers
	// late, the machine is busy.
	patience         = 3 * time.Second
	embeddedPatience = time.Minute
)

// Server is a Redis server, or a Cluster of them, that the limits of a run live in. A nil *Server stands for
// limits that live in this process.
type Server struct {
	address  address
	host     string // that a certificate names; empty for that of the address
	provider string // Redis or Hybrid
	client   string
	name     string

	instances int
	interval  time.Duration // of settling; 0 for the library's default
	patience  time.Duration

	embedded *embedded // nil for a server of the user's
	own      redis.UniversalClient
}

// Open returns the server that the flags name, after it has answered; nil if the provider is local. Without
// --redis it starts an embedded one, which forgets no key before the time shortest: no limit must need its
// keys for less. The error names the server and what is wrong. A server that does not answer within
// connectTimeout is such an error.
func (f Flags) Open(ctx context.Context, shortest time.Duration) (_ *Server, err error) {
	if err := f.Check(); err != nil || !f.Remote() {
		return nil, err
	}
	s := &Server{provider: f.Provider, client: f.client(), instances: f.instances(),
		interval: f.syncInterval(), patience: cmp.Or(f.Patience, patience)}
	if f.Redis != nil {
		s.address, err = parse(*f.Redis)
		s.name = s.address.String()
	} else if s.embedded, err = startEmbedded(shortest); err == nil {
		s.address = address{scheme: "redis", hosts: []string{s.embedded.redis.Addr()}}
		s.name = "embedded miniredis, a stand-in whose speed means nothing"
		s.patience = embeddedPatience
	}
	if err != nil {
		return nil, err
	}
	// What is wrong is said at once and not tried again, so a refusal is not reported as a server that does
	// not answer.
	s.own = s.goRedis(redis.UniversalOptions{MaxRetries: -1, DialerRetries: 1})
	if err := s.greet(ctx, cmp.Or(f.Patience, connectTimeout)); err != nil {
		return nil, errors.Join(fmt.Errorf("--redis is %s, which cannot be used: %w", s.address, err), s.Close())
	}
	return s, nil
}

// greet waits for an answer, and notes the version of the server if it tells.
func (s *Server) greet(ctx context.Context, within time.Duration) error {
	if s.embedded != nil {
		return s.own.Ping(ctx).Err()
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := s.own.Ping(ctx).Err()
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %v", within)
	case err != nil:
		return err
	}
	about := fields(s.own.Info(ctx, "server").Val())
	if about["redis_mode"] == "cluster" && len(s.address.hosts) == 1 {
		return errors.New("it is a node of a Cluster; name at least two of its nodes, with a comma between them")
	}
	if version := about["valkey_version"]; version != "" {
		s.name += ", Valkey " + version
	} else if version := about["redis_version"]; version != "" {
		s.name += ", Redis " + version
	}
	return nil
}

// Version is the name and version of the server at a URL that --redis takes.
func Version(ctx context.Context, url string) (string, error) {
	s, err := Flags{Provider: Redis, Redis: &url}.Open(ctx, time.Second)
	if err != nil {
		return "", err
	}
	_, version, _ := strings.Cut(s.name, ", ")
	return version, s.Close()
}

// Provider is the one that the flags name.
func (s *Server) Provider() string {
	if s == nil {
		return Local
	}
	return s.provider
}

// Instances is how many of a provider share its limits.
func (s *Server) Instances() int {
	if s == nil {
		return 1
	}
	return s.instances
}

// IsCluster reports whether the server is a Cluster.
func (s *Server) IsCluster() bool { return len(s.address.hosts) > 1 }

// URL is the address of a server that is no Cluster, for a client in another process: with user and password.
func (s *Server) URL() string {
	u := url.URL{Scheme: s.address.scheme, Host: s.address.hosts[0], Path: "/" + strconv.Itoa(s.address.database)}
	if s.address.user != "" || s.address.password != "" {
		u.User = url.UserPassword(s.address.user, s.address.password)
	}
	return u.String()
}

// SyncInterval is how often a Hybrid provider is to settle; 0 for its default.
func (s *Server) SyncInterval() time.Duration { return s.interval }

// Where is for reports: of limits of a provider with such a window.
func (s *Server) Where(provider string, window time.Duration) Where {
	if s == nil || provider == Local {
		return Here
	}
	w := Where{Provider: provider, Client: s.client, Server: s.name, Instances: s.instances}
	if provider == Hybrid {
		o := s.hybrid(redislimit.Options{Options: trypema.Options{Window: window}})
		if o, err := o.WithDefaults(); err == nil {
			w.SyncInterval = float64(o.SyncInterval) / float64(time.Millisecond)
		}
	}
	return w
}

// hybrid is the options of a Hybrid provider. Where a window is shorter than the interval that the flags ask
// for, as in a measurement with a window of its own, the interval is the window.
func (s *Server) hybrid(o redislimit.Options) hybridlimit.Options {
	h := hybridlimit.Options{Options: o, SyncInterval: s.interval}
	if o.Window > 0 {
		h.SyncInterval = min(h.SyncInterval, o.Window)
	}
	return h
}

// Embedded reports whether the server runs in this process, so that what it costs can not be told from what
// clients do.
func (s *Server) Embedded() bool { return s != nil && s.embedded != nil }

// Close ends the connection of the server's own, and an embedded server. Clients are closed by those who made
// them, before.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	err := s.own.Close()
	if s.embedded != nil {
		s.embedded.close()
	}
	return err
}

// Prefix returns a beginning for the names of keys that no run has used before.
func Prefix() string { return fmt.Sprintf("trypema-%016x", rand.Uint64()) }

func (s *Server) tls() *tls.Config {
	if s.address.scheme != "rediss" {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.host}
}

// SilenceGoRedis keeps go-redis from logging. What matters of that are errors that calls return.
var SilenceGoRedis = sync.OnceFunc(func() { redis.SetLogger(silent{}) })

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Patience is how long a client waits for an answer, and how long a limiter of ours has to, so that it
// decides nothing without Redis that other limiters would not fail at.
func (s *Server) Patience() time.Duration { return s.patience }

// GoRedis returns a new client with the defaults of its library, for the caller to close.
func (s *Server) GoRedis() redis.UniversalClient { return s.goRedis(redis.UniversalOptions{}) }

func (s *Server) goRedis(o redis.UniversalOptions) redis.UniversalClient {
	SilenceGoRedis()
	o.Addrs = s.address.hosts
	o.Username, o.Password = s.address.user, s.address.password
	o.DB = s.address.database
	o.TLSConfig = s.tls()
	o.ReadTimeout = s.patience
	o.ContextTimeoutEnabled = true
	// for servers that Redis Ltd. runs
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewUniversalClient(&o)
}

// Rueidis returns a new client with the defaults of its library, but without a cache, for the caller to
// close.
func (s *Server) Rueidis() (rueidis.Client, error) {
	o := rueidis.ClientOption{
		InitAddress:       s.address.hosts,
		Username:          s.address.user,
		Password:          s.address.password,
		SelectDB:          s.address.database,
		TLSConfig:         s.tls(),
		Dialer:            net.Dialer{Timeout: connectTimeout},
		DisableCache:      true,
		ForceSingleClient: len(s.address.hosts) == 1,
	}
	if s.Embedded() {
		o.Dialer.Timeout, o.ConnWriteTimeout = s.patience, s.patience
	}
	return rueidis.NewClient(o)
}

// Limits are the instances of a provider, which share their keys. Each has a client to itself.
type Limits struct {
	Instances []trypema.Provider
	clients   []func() error // end them
}

// Addr is where the server is reached, that is no Cluster, as host:port.
func (s *Server) Addr() string { return s.address.hosts[0] }

// Limits returns new instances of a provider, Redis or Hybrid, as many as the flags say and with the client
// that they name, and with keys that no run has used before.
func (s *Server) Limits(provider string, o redislimit.Options) (*Limits, error) {
	return newLimits(slices.Repeat([]*Server{s}, s.instances), provider, o)
}

// LimitsBy are Limits of instances that reach the server, which is no Cluster, each by a proxy at an address
// of its own.
func (s *Server) LimitsBy(addrs []string, provider string, o redislimit.Options) (*Limits, error) {
	var roads []*Server
	for _, addr := range addrs {
		road := *s
		road.host, _, _ = net.SplitHostPort(s.Addr())
		road.address.hosts = []string{addr}
		roads = append(roads, &road)
	}
	return newLimits(roads, provider, o)
}

func newLimits(roads []*Server, provider string, o redislimit.Options) (*Limits, error) {
	o.Prefix, o.Instances = Prefix(), len(roads)
	l := new(Limits)
	for _, s := range roads {
		if err := l.add(s, provider, o); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func (l *Limits) add(s *Server, provider string, o redislimit.Options) error {
	conn, end, err := s.conn()
	if err != nil {
		return err
	}
	l.clients = append(l.clients, end)
	var instance trypema.Provider
	if provider == Hybrid {
		instance, err = hybridlimit.New(conn, s.hybrid(o))
	} else {
		instance, err = redislimit.New(conn, o)
	}
	if err == nil {
		l.Instances = append(l.Instances, instance)
	}
	return err
}

// conn returns a new client, and what ends it.
func (s *Server) conn() (redislimit.Conn, func() error, error) {
	if s.client == Rueidis {
		client, err := s.Rueidis()
		if err != nil {
			return nil, nil, err
		}
		return rueidisconn.New(client), func() error { client.Close(); return nil }, nil
	}
	client := s.GoRedis()
	return goredisconn.New(client), client.Close, nil
}

// Flush returns when Redis has been told all that was decided before, or with what is wrong.
func (l *Limits) Flush(ctx context.Context) error {
	var errs []error
	for _, i := range l.Instances {
		if f, ok := i.(interface{ Flush(context.Context) error }); ok {
			errs = append(errs, f.Flush(ctx))
		}
	}
	return errors.Join(errs...)
}

// Len is the number of keys that each instance holds; of the one that holds the fewest.
func (l *Limits) Len() int {
	fewest := math.MaxInt
	for _, i := range l.Instances {
		if i, ok := i.(interface{ Len() int }); ok {
			fewest = min(fewest, i.Len())
		}
	}
	return fewest
}

// Close ends the instances and their clients. What is in Redis goes when its time to live is over.
func (l *Limits) Close() error {
	var errs []error
	for _, i := range l.Instances {
		errs = append(errs, i.Close())
	}
	for _, end := range l.clients {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// fields reads the lines of INFO, each a name and a value.
func fields(info string) map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}
