package redisserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/redis/rueidis"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
)

const (
	connectTimeout = 2500 * time.Millisecond

	// Patience is how long a client waits for an answer, and how long ours does. It is the default of go-redis.
	Patience = 3 * time.Second
)

// Server is a Redis server, or a Cluster of them, that the limits of a run live in. A nil *Server stands for limits that
// live in this process.
type Server struct {
	address  address
	client   string
	name     string
	embedded *embedded // nil for a server of the user's
	own      redis.UniversalClient
}

// Open returns the server that the flags name, after it has answered; nil if the provider is local. Without --redis it
// starts an embedded one, which forgets no key before the time shortest: no limit must need its keys for less. The error
// names the server and what is wrong, and comes within three seconds.
func (f Flags) Open(ctx context.Context, shortest time.Duration) (_ *Server, err error) {
	if err := f.Check(); err != nil || !f.Remote() {
		return nil, err
	}
	s := &Server{client: f.client()}
	if f.Redis != nil {
		s.address, err = parse(*f.Redis)
		s.name = s.address.String()
	} else if s.embedded, err = startEmbedded(shortest); err == nil {
		s.address = address{scheme: "redis", hosts: []string{s.embedded.redis.Addr()}}
		s.name = "embedded miniredis, not Redis: its speed means nothing"
	}
	if err != nil {
		return nil, err
	}
	s.own = s.GoRedis()
	if err := s.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("--redis is %s, which can not be used: %w", s.address, err), s.Close())
	}
	return s, nil
}

// greet waits for an answer, and notes the version of the server if it tells.
func (s *Server) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := s.own.Ping(ctx).Err()
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %v", connectTimeout)
	case err != nil || s.embedded != nil:
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

// Where is for reports.
func (s *Server) Where() Where {
	if s == nil {
		return Where{Provider: "local"}
	}
	return Where{Provider: "redis", Client: s.client, Server: s.name}
}

// Embedded reports whether the server runs in this process, so that what it costs can not be told from what clients do.
func (s *Server) Embedded() bool { return s != nil && s.embedded != nil }

// Close ends the connection of the server's own, and an embedded server. Clients are closed by those who made them, before.
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
	return &tls.Config{MinVersion: tls.VersionTLS12}
}

// Errors are returned, so nobody needs to read of them on standard error.
var silenceGoRedis = sync.OnceFunc(func() { redis.SetLogger(silent{}) })

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// GoRedis returns a new client with the defaults of its library, for the caller to close.
func (s *Server) GoRedis() redis.UniversalClient {
	silenceGoRedis()
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 s.address.hosts,
		Username:              s.address.user,
		Password:              s.address.password,
		DB:                    s.address.database,
		TLSConfig:             s.tls(),
		ReadTimeout:           Patience,
		ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // for servers that Redis Ltd. runs
		},
	})
}

// Rueidis returns a new client with the defaults of its library, but without a cache, for the caller to close.
func (s *Server) Rueidis() (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       s.address.hosts,
		Username:          s.address.user,
		Password:          s.address.password,
		SelectDB:          s.address.database,
		TLSConfig:         s.tls(),
		Dialer:            net.Dialer{Timeout: connectTimeout},
		DisableCache:      true,
		ForceSingleClient: len(s.address.hosts) == 1,
	})
}

// Provider is a Redis provider that has a client to itself.
type Provider struct {
	*redislimit.Provider
	closeClient func() error
}

// Limits returns a new provider with the client that the flags name, and with keys that no run has used before.
func (s *Server) Limits(o redislimit.Options) (*Provider, error) {
	var conn redislimit.Conn
	var closeClient func() error
	if s.client == Rueidis {
		client, err := s.Rueidis()
		if err != nil {
			return nil, err
		}
		conn, closeClient = rueidisconn.New(client), func() error { client.Close(); return nil }
	} else {
		client := s.GoRedis()
		conn, closeClient = goredisconn.New(client), client.Close
	}
	o.Prefix = Prefix()
	limits, err := redislimit.New(conn, o)
	if err != nil {
		return nil, errors.Join(err, closeClient())
	}
	return &Provider{limits, closeClient}, nil
}

// Close ends the provider and its client. What is in Redis goes when its time to live is over.
func (p *Provider) Close() error { return errors.Join(p.Provider.Close(), p.closeClient()) }

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
