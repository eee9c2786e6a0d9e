package onredis

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fixture"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redigoconn"
	"github.com/trypema/trypema/redislimit"
	"github.com/trypema/trypema/rueidisconn"
	"github.com/trypema/trypema/valkeyconn"
)

// documentedACL returns the words of the user that docs/operating.md has Redis know: those that are enough
// for one server, and those that a Cluster wants besides.
func documentedACL(t *testing.T) (user, cluster []string) {
	t.Helper()
	explore.ReadsRepository()
	text, err := os.ReadFile("../../../docs/operating.md")
	must.OK(t, err)
	lines := regexp.MustCompile(`(?m)^ACL SETUSER limits (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(lines) != 2 {
		t.Fatalf("%d lines ACL SETUSER limits in docs/operating.md, want that of a server and what a Cluster adds",
			len(lines))
	}
	return strings.Fields(lines[0][1]), strings.Fields(lines[1][1])
}

// know has the servers know the user.
func know(t *testing.T, addrs, rules []string) {
	t.Helper()
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		args := []any{"ACL", "SETUSER", "limits", "reset"}
		for _, rule := range rules {
			args = append(args, rule)
		}
		if err := c.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(rules, err)
		}
		_ = c.Close()
	}
}

// named are connections as the documented user.
var named = []struct {
	name string
	rule string // that the client wants besides
	dial func(t *testing.T, addrs []string) (conn redislimit.Conn, end func())
}{
	{"go-redis", "", func(t *testing.T, addrs []string) (redislimit.Conn, func()) {
		c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, Username: "limits", Password: "secret"})
		return goredisconn.New(c), func() { must.Report(t, c.Close()) }
	}},
	{"redigo", "", func(_ *testing.T, addrs []string) (redislimit.Conn, func()) {
		user := []redigo.DialOption{redigo.DialUsername("limits"), redigo.DialPassword("secret")}
		p := &redigo.Pool{Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", addrs[0], user...) }}
		return redigoconn.New(p), func() { _ = p.Close() }
	}},
	{"valkey-go without its cache", "", func(t *testing.T, addrs []string) (redislimit.Conn, func()) {
		c, err := valkey.NewClient(valkey.ClientOption{InitAddress: addrs, Username: "limits", Password: "secret", DisableCache: true})
		must.OK(t, err)
		return valkeyconn.New(c), c.Close
	}},
	{"rueidis without its cache", "", ofRueidis(true)},
	{"rueidis", "+client|tracking", ofRueidis(false)},
}

func ofRueidis(disableCache bool) func(t *testing.T, addrs []string) (redislimit.Conn, func()) {
	return func(t *testing.T, addrs []string) (redislimit.Conn, func()) {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, Username: "limits", Password: "secret", DisableCache: disableCache})
		must.OK(t, err)
		return rueidisconn.New(c), c.Close
	}
}

// useAll uses every verb of both providers and strategies for so long, in virtual time, that keys fill, live
// on, and expire. It returns what has gone wrong first.
func useAll(t *testing.T, conn redislimit.Conn) (err error) {
	t.Helper()
	t.Run("use", func(t *testing.T) { // which ends the bridge
		bridge := rig.NewBridge(t, conn)
		synctest.Test(t, func(t *testing.T) { err = useBoth(t, bridge.Conn()) })
	})
	return err
}

func useBoth(t *testing.T, conn redislimit.Conn) error {
	o := redislimit.Options{
		Options: trypema.Options{Window: 100 * time.Millisecond, Bucket: time.Millisecond}, Timeout: rig.Patience, OnFailure: redislimit.FailClosed,
	}
	inRedis, err := redislimit.New(conn, o)
	must.OK(t, err)
	defer inRedis.Close() //nolint:errcheck // it has no exchange left
	hybrid, err := hybridlimit.New(conn, hybridlimit.Options{Options: o, SyncInterval: 2 * time.Millisecond})
	must.OK(t, err)
	defer hybrid.Close() //nolint:errcheck // without access it can not settle
	ctx := t.Context()
	for _, p := range []trypema.Binder{inRedis, hybrid} { // their names end in the group
		free := trypema.Policy{Name: "free", Limits: []trypema.Limit{{Rate: 100, Window: time.Second}}}
		policies := fixture.Policies(t, p, free)
		if d, err := policies.Allow(ctx, "free", "k"); err != nil || d.Fallback {
			return fmt.Errorf("a policy: %+v, %w", d, err)
		}
	}
	for _, l := range []trypema.Limiter{inRedis.Absolute(), inRedis.Suppressed(), hybrid.Absolute(), hybrid.Suppressed()} {
		for i := range 40 {
			rate := trypema.Per(40, 100*time.Millisecond)
			one, err1 := l.Allow(ctx, "k", rate)
			two, err2 := l.AllowN(ctx, "k", rate, 2)
			peek, err3 := l.Peek(ctx, "k", rate, 1)
			_, err4 := l.Usage(ctx, "k", rate)
			var err5 error
			if i > 30 && i%2 == 1 { // until then, keys live on by PEXPIRE
				_, err5 = l.Set(ctx, "k", trypema.Always(), 7,
					[]trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}[i%3])
			}
			for _, err := range []error{err1, err2, err3, err4, err5} {
				if err != nil {
					return err
				}
			}
			if one.Fallback || two.Fallback || peek.Fallback {
				return fmt.Errorf("decided by the policy: %+v, %+v, %+v", one, two, peek)
			}
			time.Sleep(4 * time.Millisecond)
		}
		if err := l.Delete(ctx, "k"); err != nil {
			return err
		}
	}
	return nil
}

// The user that the documents propose may do all that the providers do, on a server and on a Cluster, by each
// client.
func TestDocumentedACL(t *testing.T) {
	user, cluster := documentedACL(t)
	for _, topology := range rig.Topologies[:2] {
		t.Run(topology.Name, func(t *testing.T) {
			addrs, rules := topology.Start(t), user
			if len(addrs) > 1 {
				rules = append(slices.Clone(user), cluster...)
			}
			for _, n := range named {
				if n.name == "redigo" && len(addrs) > 1 {
					continue // it does not support Cluster
				}
				if strings.HasSuffix(n.name, "without its cache") && len(addrs) > 1 && !explore.Long() {
					continue // it asks for no more than rueidis does
				}
				t.Run(n.name, func(t *testing.T) {
					know(t, addrs, append(slices.Clone(rules), strings.Fields(n.rule)...))
					conn, end := n.dial(t, addrs)
					defer end()
					must.Report(t, useAll(t, conn))
				})
			}
		})
	}
}

// And it may do nothing that they do not need: without any of it, something fails.
func TestDocumentedACLIsLeast(t *testing.T) {
	user, _ := documentedACL(t)
	server := redisserver.Start(t)
	addrs := []string{server.Addr()}
	for _, rule := range user {
		if !strings.HasPrefix(rule, "+") {
			continue
		}
		must.OK(t, server.Client().ScriptFlush(t.Context()).Err())
		know(t, addrs, slices.DeleteFunc(slices.Clone(user), func(r string) bool { return r == rule }))
		conn, end := named[0].dial(t, addrs)
		if err := useAll(t, conn); err == nil {
			t.Errorf("without %s all is well", rule)
		}
		end()
	}
}
