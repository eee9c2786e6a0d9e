// Package store turns the flags that say where limits keep their counts into a Redis server and clients of
// it.
package store

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/cli/flags"
)

// Flags say where the limits of a command keep their counts. Commands embed it.
type Flags struct {
	Provider string  `default:"local" help:"Where counts are kept: local, redis, or hybrid (leased from Redis)."`
	Redis    *string `name:"redis" placeholder:"URL" help:"redis://user:password@host:6379/0; with commas a Cluster. Default: miniredis."`
	Client   *string `help:"Library that asks Redis, go-redis or rueidis. Default: go-redis."`

	Instances    *int           `help:"With redis or hybrid: instances that share the limits. Default: 1."`
	SyncInterval *time.Duration `help:"With hybrid: how often keys settle. Default: window / 200, from 5ms to 100ms."`

	Patience time.Duration `kong:"-"` // how long tests wait for an answer of the server; 0 for what is usual
}

// The providers, as in Flags and Where.
const (
	Local  = "local"
	Redis  = "redis"
	Hybrid = "hybrid"
)

const maxInstances = 64

// Remote reports whether Redis is needed: the counts are kept there, or settled.
func (f Flags) Remote() bool { return f.Provider == Redis || f.Provider == Hybrid }

// Check returns the first flag that is wrong as a flags.Error, or nil. It asks no server.
func (f Flags) Check() error {
	const onlyRemote = "left out unless --provider is redis or hybrid"
	var shown string
	var wrong error
	if f.Redis != nil {
		shown = concealed(*f.Redis)
		_, wrong = parse(*f.Redis)
	}
	return flags.First(
		flags.OneOf("provider", f.Provider, Local, Redis, Hybrid),
		flags.Check(f.Redis == nil || f.Remote(), "redis", shown, onlyRemote),
		flags.Check(f.Client == nil || f.Remote(), "client", f.client(), onlyRemote),
		flags.OneOf("client", f.client(), GoRedis, Rueidis),
		wrong,
		flags.Check(f.Instances == nil || f.Remote(), "instances", f.instances(), onlyRemote),
		flags.Check(f.instances() >= 1 && f.instances() <= maxInstances, "instances", f.instances(),
			fmt.Sprintf("from 1 to %d", maxInstances)),
		flags.Check(f.SyncInterval == nil || f.Provider == Hybrid, "sync-interval", f.syncInterval(),
			"left out unless --provider is hybrid"),
	)
}

// CheckFor returns what is wrong with a flag of Flags for limits with such a window, as Check does.
func (f Flags) CheckFor(window time.Duration) error {
	d := f.syncInterval()
	return flags.Check(f.SyncInterval == nil || d >= time.Millisecond && d <= window, "sync-interval", d,
		fmt.Sprintf("from 1ms to --window (%v)", window))
}

func (f Flags) instances() int { return flags.Or(f.Instances, 1) }

// syncInterval is 0 for the library's default.
func (f Flags) syncInterval() time.Duration { return flags.Or(f.SyncInterval, 0) }

// The client libraries.
const (
	GoRedis = "go-redis"
	Rueidis = "rueidis"
)

func (f Flags) client() string { return flags.Or(f.Client, GoRedis) }

// address is what --redis says.
type address struct {
	scheme   string // redis or rediss
	user     string
	password string
	hosts    []string // with ports; more than one are nodes of a Cluster
	database int
}

// String is the address without user and password.
func (a address) String() string {
	s := a.scheme + "://" + strings.Join(a.hosts, ",")
	if a.database > 0 {
		s += "/" + strconv.Itoa(a.database)
	}
	return s
}

// parse reads what --redis says, or returns a flags.Error that does not show the password.
func parse(text string) (address, error) {
	wrong := func(rule string) (address, error) {
		return address{}, flags.Check(false, "redis", concealed(text), rule)
	}
	var a address
	for i, node := range strings.Split(text, ",") {
		if i > 0 && !strings.Contains(node, "://") {
			node = a.scheme + "://" + node
		}
		u, err := url.Parse(node)
		if err != nil || !isHost(u) || u.RawQuery != "" || u.Fragment != "" {
			return wrong("a URL such as redis://user:password@host:6379/0")
		}
		if u.Scheme != "redis" && u.Scheme != "rediss" {
			return wrong("a URL that begins with redis:// or rediss://")
		}
		port := cmp.Or(u.Port(), "6379")
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return wrong("a URL whose port is at most 65535")
		}
		database, err := strconv.ParseUint("0"+strings.Trim(u.Path, "/"), 10, 31)
		if err != nil {
			return wrong("a URL whose path is the number of a database")
		}
		password, _ := u.User.Password()
		if i == 0 {
			a = address{scheme: u.Scheme, user: u.User.Username(), password: password, database: int(database)}
		} else if u.Scheme != a.scheme || u.User != nil && (u.User.Username() != a.user || password != a.password) {
			return wrong("nodes with the same scheme, user and password")
		}
		a.hosts = append(a.hosts, net.JoinHostPort(u.Hostname(), port))
		if len(a.hosts) > 1 && (a.database > 0 || database > 0) {
			return wrong("nodes without a database, which a Cluster does not have")
		}
	}
	return a, nil
}

// isHost reports whether the host of a URL is one: net/url takes "h:1" in "redis://h:1:" for its name, and
// brackets anywhere.
func isHost(u *url.URL) bool {
	name := u.Hostname()
	return name != "" && !strings.ContainsAny(name, "[]") &&
		(!strings.Contains(name, ":") || strings.HasPrefix(u.Host, "["))
}

// A password may stand before an @, after a question mark, or where a port belongs.
var (
	beforeAt = regexp.MustCompile(`^(\w+://)?.*@`)
	afterAsk = regexp.MustCompile(`\?.*`)
	notAPort = regexp.MustCompile(`:[^/:,\]]*[^/:,\]0-9][^/:,\]]*`)
)

// concealed is text, which may be no URL, without what may be a password.
func concealed(text string) string {
	text = beforeAt.ReplaceAllString(text, "$1***@")
	text = afterAsk.ReplaceAllString(text, "?***")
	return notAPort.ReplaceAllString(text, ":***")
}

// Where is for reports: where limits keep their counts.
type Where struct {
	Provider     string  `json:"provider"`
	Client       string  `json:"client"` // empty for local, as is Server
	Server       string  `json:"server"`
	Instances    int     `json:"instances"`
	SyncInterval float64 `json:"sync_interval_ms"` // 0 but for hybrid
}

// Here is where limits keep their counts in this process.
var Here = Where{Provider: Local, Instances: 1}

// String is Where for a person.
func (w Where) String() string {
	if w.Server == "" {
		return "local, in this process"
	}
	s := w.Provider
	if w.Instances > 1 {
		s += " × " + strconv.Itoa(w.Instances)
	}
	if w.Client != "" {
		s += " by " + w.Client
	}
	return s + ": " + w.Server
}

// Pace says for a person how often keys settle; empty for those that do not.
func (w Where) Pace() string {
	if w.SyncInterval == 0 {
		return ""
	}
	return fmt.Sprintf("settled every %gms", w.SyncInterval)
}
