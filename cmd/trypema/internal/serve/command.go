// Package serve is trypema serve: a server of rate limits for Envoy, for proxies that ask by HTTP, and for
// clients of Redis and of HTTP. Its parts are in packages of their own: rules reads the configuration, engine
// decides, and rls, resp and rest are the protocols.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/check"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rest"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
	"github.com/trypema/trypema/internal/cli/flags"
	"github.com/trypema/trypema/internal/cli/screen"
)

// Command is the flags of trypema serve. Each can be set by the variable of the environment that its help
// names.
type Command struct {
	Files []string `arg:"" optional:"" name:"file" help:"With --check: files and folders to check, instead of those of --config."`

	Config       []string      `group:"Configuration" env:"TRYPEMA_CONFIG" sep:"," placeholder:"PATH" help:"Files of the Envoy rate limit service, and of policies, or folders of these; several with commas between them. Default: an example."`
	MergeDomains bool          `group:"Configuration" env:"TRYPEMA_MERGE_DOMAINS" help:"Several files may add to one domain."`
	Watch        time.Duration `group:"Configuration" env:"TRYPEMA_WATCH" default:"2s" help:"How often files are looked at for changes; 0s is never. SIGHUP has them read at once."`
	Check        bool          `group:"Configuration" help:"Do as trypema check: print the rules as they were understood, or what is wrong with them, and exit with 0 or 1."`
	XDS          string        `name:"xds" group:"Configuration" env:"TRYPEMA_XDS" placeholder:"HOST:PORT" help:"Take the configuration from an xDS management server instead of files."`
	Node         string        `group:"Configuration" env:"TRYPEMA_NODE" default:"trypema" placeholder:"ID" help:"With --xds: the node that this server is."`

	Redis        string        `group:"Store" env:"TRYPEMA_REDIS" placeholder:"URL" help:"Count in Redis: redis://user:password@host:6379/0, or rediss:// for TLS. Several with commas between them are nodes of one Cluster, or sentinels. Default: in memory."`
	RedisMaster  string        `group:"Store" env:"TRYPEMA_REDIS_MASTER" placeholder:"NAME" help:"The master that the sentinels of --redis watch."`
	RedisCA      string        `name:"redis-ca" group:"Store" env:"TRYPEMA_REDIS_CA" placeholder:"FILE" help:"Authorities in PEM for rediss://."`
	RedisPrefix  string        `group:"Store" env:"TRYPEMA_REDIS_PREFIX" default:"trypema" help:"How the names of keys in Redis begin. Servers with the same prefix share their limits."`
	RedisTimeout time.Duration `group:"Store" env:"TRYPEMA_REDIS_TIMEOUT" default:"250ms" help:"How long a request waits for Redis before --on-failure decides."`
	Hybrid       bool          `group:"Store" env:"TRYPEMA_HYBRID" help:"Lease parts of the limits from Redis, and decide in this process."`
	SyncInterval time.Duration `group:"Store" env:"TRYPEMA_SYNC_INTERVAL" default:"0s" help:"With --hybrid: how often keys near their limit settle. Default: by the window, from 5ms to 100ms."`
	OnFailure    string        `group:"Store" env:"TRYPEMA_ON_FAILURE" default:"local" help:"What decides while Redis does not answer: local (this process by itself), open, closed, or error (an error, so that the failure mode of the proxy decides)."`
	Instances    int           `group:"Store" env:"TRYPEMA_INSTANCES" default:"1" help:"With --on-failure local: the servers that share the limits. Each enforces its share while Redis does not answer."`
	MaxKeys      int           `group:"Store" env:"TRYPEMA_MAX_KEYS" default:"1000000" help:"Keys that this process remembers for each length of window; beyond it the longest idle one is forgotten. 0 is no bound."`

	GRPC  string `name:"grpc" group:"Listeners" env:"TRYPEMA_GRPC" default:"127.0.0.1:8081" placeholder:"ADDRESS" help:"The Envoy rate limit service. An ADDRESS is HOST:PORT or unix:PATH; empty is off. Default: ${default}."`
	HTTP  string `name:"http" group:"Listeners" env:"TRYPEMA_HTTP" default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"/v1, /auth for proxies, and /json of the Envoy rate limit service. Default: ${default}."`
	RESP  string `name:"resp" group:"Listeners" env:"TRYPEMA_RESP" default:"127.0.0.1:6380" placeholder:"ADDRESS" help:"The protocol of Redis: CL.THROTTLE and TRYPEMA.*. Default: ${default}."`
	Admin string `group:"Listeners" env:"TRYPEMA_ADMIN" default:"127.0.0.1:9090" placeholder:"ADDRESS" help:"/metrics, /healthz, /readyz, /rlconfig, and /limited, which shows keys. Not for the public. Default: ${default}."`

	Shadow           bool `group:"Envoy" env:"TRYPEMA_SHADOW" help:"Answer OK to every request, and count what would have been refused."`
	RatelimitHeaders bool `group:"Envoy" env:"TRYPEMA_RATELIMIT_HEADERS" help:"Have Envoy tell its clients RateLimit-Limit, -Remaining and -Reset."`
	DynamicMetadata  bool `group:"Envoy" env:"TRYPEMA_DYNAMIC_METADATA" help:"Answer with dynamic metadata: the request, and the metadata of rules."`
	EnvoyMetrics     bool `group:"Envoy" env:"TRYPEMA_ENVOY_METRICS" help:"Also count by the names of the metrics of envoyproxy/ratelimit."`

	AuthKey        string   `group:"Forward auth" env:"TRYPEMA_AUTH_KEY" default:"address" help:"Who shares a limit under /auth: address, authorization (the hash of that header), or header:NAME."`
	TrustedProxies []string `group:"Forward auth" env:"TRYPEMA_TRUSTED_PROXIES" sep:"," default:"127.0.0.0/8,::1/128" help:"Networks of the proxies whose X-Forwarded-For is believed."`
	TrustSockets   bool     `group:"Forward auth" env:"TRYPEMA_TRUST_SOCKETS" help:"Peers on a unix socket are such proxies, too."`
	IPv6Bits       int      `name:"ipv6-bits" group:"Forward auth" env:"TRYPEMA_IPV6_BITS" default:"64" help:"Length of the network of an IPv6 client."`

	Token     string `group:"Security" env:"TRYPEMA_TOKEN" help:"Password of AUTH, and bearer of /v1; /auth takes it in X-Trypema-Token. Better in the environment, or a file."`
	TokenFile string `group:"Security" env:"TRYPEMA_TOKEN_FILE" placeholder:"FILE" help:"Tokens, one a line."`
	GRPCTLS   TLS    `embed:"" prefix:"grpc-" envprefix:"TRYPEMA_GRPC_" group:"Security"`
	HTTPTLS   TLS    `embed:"" prefix:"http-" envprefix:"TRYPEMA_HTTP_" group:"Security"`
	RESPTLS   TLS    `embed:"" prefix:"resp-" envprefix:"TRYPEMA_RESP_" group:"Security"`
	AdminTLS  TLS    `embed:"" prefix:"admin-" envprefix:"TRYPEMA_ADMIN_" group:"Security"`

	MaxConns  int           `group:"Operation" env:"TRYPEMA_MAX_CONNS" default:"50000" help:"Connections at a time, of all listeners together."`
	Idle      time.Duration `group:"Operation" env:"TRYPEMA_IDLE" default:"0s" help:"How long a RESP connection may send nothing; 0s is no bound."`
	MaxAge    time.Duration `name:"grpc-max-age" group:"Operation" env:"TRYPEMA_GRPC_MAX_AGE" default:"24h" help:"How long a connection of gRPC lives, so that clients spread over new servers."`
	Drain     time.Duration `group:"Operation" env:"TRYPEMA_DRAIN" default:"5s" help:"After SIGTERM: how long requests are still served while health says that none should come."`
	LogFormat string        `group:"Operation" env:"TRYPEMA_LOG_FORMAT" default:"text" help:"text or json."`
	LogLevel  string        `group:"Operation" env:"TRYPEMA_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
	Pprof     bool          `group:"Operation" env:"TRYPEMA_PPROF" help:"/debug/pprof on the admin listener."`

	// For tests.
	started func(*server) // is told when the listeners are open
}

// Help is the text of trypema serve --help.
func (Command) Help() string {
	return `Serves rate limits to Envoy (the rate limit service, version 3), to proxies that ask by HTTP (auth_request of nginx, ForwardAuth of
Traefik, forward_auth of Caddy), and to any client of Redis or HTTP. Limits are exact: in no window of time does more pass. A request
that several limits match is admitted by all of them or costs nothing.

Without flags it serves an example on loopback, in memory, and prints commands to try. The files of envoyproxy/ratelimit are read as
they are. Servers with the same --redis share their limits.

A change of the files, and SIGHUP, put the new configuration in place; one that is wrong is logged, and the old one stays. SIGTERM has
health say no, serves on for --drain, ends, and gives leases back; Ctrl-C ends at once. The exit status is 0 then, 1 if the server
failed or --check found something wrong, 2 for a wrong flag.`
}

// check returns the first flag that is wrong, as a flags.Error.
func (c *Command) check() error {
	auth, err := c.auth()
	if err != nil {
		return err
	}
	_, err = rest.New(auth)
	ofRedis := func(isGiven bool, name string, value any) error {
		return flags.Check(c.Redis != "" || !isGiven, name, value, "left out unless --redis is given")
	}
	return flags.First(
		ofRedis(c.Hybrid, "hybrid", c.Hybrid),
		ofRedis(c.RedisMaster != "", "redis-master", c.RedisMaster),
		ofRedis(c.RedisCA != "", "redis-ca", c.RedisCA),
		ofRedis(c.OnFailure != failLocal, "on-failure", c.OnFailure),
		ofRedis(c.Instances != 1, "instances", c.Instances),
		flags.Check(c.SyncInterval == 0 || c.Hybrid, "sync-interval", c.SyncInterval,
			"left out unless --hybrid is given"),
		flags.OneOf("on-failure", c.OnFailure, failLocal, failOpen, failClosed, failError),
		flags.OneOf("log-format", c.LogFormat, "text", "json"),
		flags.OneOf("log-level", c.LogLevel, "debug", "info", "warn", "error"),
		flags.Check(c.Watch >= 0, "watch", c.Watch, "0s or more"),
		flags.Check(c.MaxAge > 0, "grpc-max-age", c.MaxAge, "above 0s"),
		flags.Check(c.Drain >= 0, "drain", c.Drain, "0s or more"),
		flags.Check(c.Idle >= 0, "idle", c.Idle, "0s or more"),
		flags.Check(c.RedisTimeout >= time.Millisecond, "redis-timeout", c.RedisTimeout, "at least 1ms"),
		flags.Check(c.Instances >= 1, "instances", c.Instances, "at least 1"),
		flags.Check(c.MaxKeys >= 0, "max-keys", c.MaxKeys, "0 or more"),
		flags.Check(c.MaxConns >= 1, "max-conns", c.MaxConns, "at least 1"),
		c.checkFiles(),
		flags.Check(len(c.Config) == 0 || c.XDS == "", "xds", c.XDS, "left out if --config is given"),
		flags.Check(c.IPv6Bits >= 1 && c.IPv6Bits <= 128, "ipv6-bits", c.IPv6Bits, "from 1 to 128"),
		flags.Check(
			err == nil,
			"auth-key",
			fmt.Sprintf("%q", c.AuthKey),
			"address, authorization or header:NAME, with --trusted-proxies that are not all there is",
		),
		flags.Check(
			c.GRPC != "" || c.HTTP != "" || c.RESP != "",
			"grpc",
			`""`,
			"an address, or --http or --resp be one",
		),
		c.GRPCTLS.check("grpc"),
		c.HTTPTLS.check("http"),
		c.RESPTLS.check("resp"),
		c.AdminTLS.check("admin"),
	)
}

// checkFiles returns what is wrong with files without a flag.
func (c *Command) checkFiles() error {
	if len(c.Files) == 0 || c.Check {
		return nil
	}
	return &flags.Error{Name: "config", Rule: "given in front of a file: --config " + c.Files[0]}
}

// auth is what the flags say of /auth.
func (c *Command) auth() (rest.Options, error) {
	o := rest.Options{Key: rest.Key(c.AuthKey), OnUnixSocket: c.TrustSockets, IPv6Bits: c.IPv6Bits}
	for _, text := range c.TrustedProxies {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return o, flags.Check(false, "trusted-proxies", strconv.Quote(text), "networks such as 10.0.0.0/8")
		}
		o.Proxies = append(o.Proxies, p)
	}
	return o, nil
}

// Run checks the configuration, or serves it until the context ends.
func (c *Command) Run(ctx context.Context, out screen.Streams) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Check {
		return c.runCheck(out)
	}
	tokens, err := c.tokens()
	if err != nil {
		return err
	}
	s, err := c.newServer(ctx, c.logger(out), tokens)
	if err != nil {
		return err
	}
	defer s.takeSignals()()
	s.greet(out)
	if c.started != nil {
		c.started(s)
	}
	return s.run(ctx)
}

// runCheck is trypema check.
func (c *Command) runCheck(out screen.Streams) error {
	paths := slices.Concat(c.Files, c.Config)
	if len(paths) == 0 {
		return &flags.Error{Name: "check", Value: "true", Rule: "given with files, or with --config"}
	}
	return check.Print(out, rules.Options{MergeDomains: c.MergeDomains}, false, paths...)
}

func (c *Command) logger(out screen.Streams) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // it was checked
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out.Err, o))
	}
	return slog.New(slog.NewTextHandler(out.Err, o))
}

// tokens returns those of --token and --token-file.
func (c *Command) tokens() ([]string, error) {
	var tokens []string
	if c.Token != "" {
		tokens = append(tokens, c.Token)
	}
	if c.TokenFile == "" {
		return tokens, nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, errors.New("--token-file is " + c.TokenFile + ", in which there is no token")
	}
	return tokens, nil
}
