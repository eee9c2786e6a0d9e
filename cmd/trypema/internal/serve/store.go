package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/cli/flags"
	clistore "github.com/trypema/trypema/internal/cli/store"
	"github.com/trypema/trypema/redislimit"
)

// store is where limits keep their counts.
type store struct {
	trypema.Provider
	name   string // for a person
	client redis.UniversalClient

	isGone atomic.Bool // Redis did not answer to the last probe
	isAway atomic.Bool // the provider takes Redis for unavailable
}

// probe asks Redis whether it is there. If it is, and the provider does not know, a call that records nothing
// tells it: without requests nothing else would.
func (s *store) probe(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.isGone.Store(s.client.Ping(ctx).Err() != nil)
	if s.isAway.Load() && !s.isGone.Load() {
		anyNode := "probe " + strconv.Itoa(rand.IntN(1000))
		_, _ = s.Absolute().Peek(ctx, anyNode, trypema.PerSecond(1), 1)
	}
}

// close gives leases back, and ends the client.
func (s *store) close() error {
	err := s.Close()
	if s.client != nil {
		err = errors.Join(err, s.client.Close())
	}
	return err
}

// The policies for a Redis that does not answer. With error a request gets an error of its protocol.
const (
	failLocal  = "local"
	failOpen   = "open"
	failClosed = "closed"
	failError  = "error"
)

// open returns the store that the flags name. It does not wait for Redis.
func (c *Command) open(o trypema.Options, changed func(redislimit.Health)) (*store, error) {
	o.MaxKeys = c.MaxKeys
	if c.Redis == "" {
		local, err := trypema.NewLocal(o)
		return &store{Provider: local, name: "in memory"}, err
	}
	options, name, err := c.redisOptions()
	if err != nil {
		return nil, err
	}
	clistore.SilenceGoRedis()
	s := &store{client: redis.NewUniversalClient(options)}
	ro := redislimit.Options{
		Options: o, Prefix: c.RedisPrefix, Timeout: c.RedisTimeout, Instances: c.Instances,
		OnFailure: map[string]redislimit.FailurePolicy{
			failLocal: redislimit.FailLocal, failOpen: redislimit.FailOpen,
			failClosed: redislimit.FailClosed, failError: redislimit.FailClosed,
		}[c.OnFailure],
		OnChange: func(h redislimit.Health) {
			s.isAway.Store(!h.Available)
			changed(h)
		},
	}
	conn := goredisconn.New(s.client)
	if c.Hybrid {
		s.name = "hybrid, with Redis at " + name
		s.Provider, err = hybridlimit.New(conn,
			hybridlimit.Options{Options: ro, SyncInterval: c.SyncInterval})
	} else {
		s.name = "Redis at " + name
		s.Provider, err = redislimit.New(conn, ro)
	}
	if err != nil {
		return nil, errors.Join(err, s.client.Close())
	}
	return s, nil
}

// redisOptions reads --redis: a URL, or several with commas between them, which are nodes of a Cluster or,
// with --redis-master, sentinels. The name has no password.
func (c *Command) redisOptions() (o *redis.UniversalOptions, name string, err error) {
	wrong := func(rule string) error {
		return &flags.Error{Name: "redis", Value: "wrong", Rule: rule}
	}
	o = &redis.UniversalOptions{
		MasterName: c.RedisMaster, ContextTimeoutEnabled: true,
		MaxRetries: -1, DialerRetries: 1, // so that a connection that is refused is known, and known at once
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	var names []string
	for i, one := range strings.Split(c.Redis, ",") {
		single, err := redis.ParseURL(strings.TrimSpace(one))
		if err != nil { // which could quote the password
			return nil, "", wrong(
				"a URL such as redis://user:password@host:6379/0, or several with commas between them",
			)
		}
		o.Addrs = append(o.Addrs, single.Addr)
		if i == 0 {
			o.Username, o.Password, o.DB, o.TLSConfig = single.Username, single.Password, single.DB, single.TLSConfig
			if single.Network == "unix" && strings.Contains(c.Redis, ",") {
				return nil, "", wrong("one URL, if that is a socket")
			}
		}
		u, _ := url.Parse(strings.TrimSpace(one)) // it was parsed
		u.User, u.RawQuery = nil, ""
		names = append(names, u.String())
	}
	if c.RedisCA != "" {
		if o.TLSConfig == nil {
			return nil, "", &flags.Error{
				Name:  "redis-ca",
				Value: c.RedisCA,
				Rule:  "left out unless --redis begins with rediss://",
			}
		}
		pem, err := os.ReadFile(c.RedisCA)
		if err != nil {
			return nil, "", err
		}
		o.TLSConfig.RootCAs = x509.NewCertPool()
		if !o.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("--redis-ca is %s, in which there is no certificate", c.RedisCA)
		}
	}
	if o.TLSConfig != nil {
		o.TLSConfig.MinVersion = tls.VersionTLS12
	}
	return o, strings.Join(names, ","), nil
}
