package redisserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/proof/leak"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
)

func TestMain(m *testing.M) { leak.Main(m) }

// size returns how many keys a server holds.
func size(t *testing.T, s *redisserver.Server) int64 {
	t.Helper()
	n, err := s.Client().DBSize(t.Context()).Result()
	must.OK(t, err)
	return n
}

func TestServersAreApart(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := redisserver.Start(t)
			c := s.Client()
			if n := size(t, s); n != 0 {
				t.Errorf("a new server holds %d keys", n)
			}
			must.OK(t, c.Set(t.Context(), "key", s.Addr(), 0).Err())
			if got, err := c.Get(t.Context(), "key").Result(); err != nil || got != s.Addr() {
				t.Errorf("%s has the key of %q; error %v", s.Addr(), got, err)
			}
		})
	}
}

func TestKillAndRestart(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		want int64 // keys after a restart
	}{
		{"NothingIsKept", nil, 0},
		{"UnlessToldSo", []string{"--appendonly", "yes", "--appendfsync", "always"}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := redisserver.Start(t, row.args...)
			c, addr := s.Client(), s.Addr()
			must.OK(t, c.Set(t.Context(), "key", 1, 0).Err())
			s.Kill()
			s.Kill()
			if conn, err := net.Dial("tcp", addr); err == nil {
				_ = conn.Close()
				t.Error("somebody listens at the address of a dead server")
			}
			for range 2 {
				s.Restart()
				if n := size(t, s); n != row.want || s.Addr() != addr {
					t.Errorf("%d keys at %s; want %d at %s", n, s.Addr(), row.want, addr)
				}
			}
		})
	}
}

func TestPauseAndResume(t *testing.T) {
	s := redisserver.Start(t)
	c := s.Client()
	must.OK(t, c.Ping(t.Context()).Err())
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if said, err := c.Ping(ctx).Result(); err == nil {
		t.Errorf("a server that is paused answers %q", said)
	}
	s.Resume()
	must.OK(t, c.Ping(t.Context()).Err())
	s.Pause() // and is killed
}

// spy is a test that may fail without consequence.
type spy struct {
	testing.TB
	said string
}

func (s *spy) Helper() {}

func (s *spy) Fatal(args ...any) {
	s.said = fmt.Sprintln(args...)
	runtime.Goexit()
}

func (s *spy) Skip(args ...any) { s.Fatal(append([]any{"skipped: "}, args...)...) }

func (s *spy) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }

// starting returns what it is that Start does not succeed for.
func starting(t *testing.T, args ...string) string {
	s := &spy{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		redisserver.Start(s, args...)
	}()
	<-done
	return s.said
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	t.Run("NoServer", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("REDIS_SERVER", "")
		t.Setenv("INSTALL", "")
		said := starting(t)
		for _, want := range []string{"redis-server", "valkey-server", "apt-get install redis-server", "brew install redis", "REDIS_SERVER="} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in %q", want, said)
			}
		}
	})
	t.Run("NoServerNorPermissionToInstallOne", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("REDIS_SERVER", "")
		t.Setenv("INSTALL", "0")
		said := starting(t)
		for _, want := range []string{"skipped", "redis-server", "valkey-server", "INSTALL=0"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in %q", want, said)
			}
		}
	})
	t.Run("NotWhatIsNamed", func(t *testing.T) {
		missing := filepath.Join(t.TempDir(), "missing")
		t.Setenv("REDIS_SERVER", missing)
		t.Setenv("INSTALL", "0")
		if said := starting(t); !strings.Contains(said, missing) {
			t.Errorf("%q is not in %q", missing, said)
		}
	})
	t.Run("WrongOption", func(t *testing.T) {
		if said := starting(t, "--no-such-option", "1"); !strings.Contains(said, "no-such-option") {
			t.Errorf("the output of the server is not in %q", said)
		}
	})
}

func TestServerIsNamed(t *testing.T) {
	for _, program := range []string{os.Getenv("REDIS_SERVER"), "redis-server", "valkey-server"} {
		found, err := exec.LookPath(program)
		if err != nil {
			continue
		}
		named := filepath.Join(t.TempDir(), "named")
		must.OK(t, os.Symlink(found, named))
		t.Setenv("PATH", t.TempDir())
		t.Setenv("REDIS_SERVER", named)
		redisserver.Start(t)
		return
	}
	redisserver.Start(t) // says what is missing
}

func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redisserver.StartCluster(t)
	c := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: cluster.Addrs(), MaxRetries: -1, MaxRedirects: -1, DialerRetries: 1, MinRetryBackoff: -1,
		DialTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
	})
	defer func() { _ = c.Close() }()
	const keys = 300
	for i := range keys {
		must.OK(t, c.Set(t.Context(), fmt.Sprint("key ", i), i, 0).Err())
	}
	held := int64(0)
	for _, n := range cluster.Nodes {
		if size(t, n) < keys/6 {
			t.Errorf("%s has only %d of %d keys", n.Addr(), size(t, n), keys)
		}
		held += size(t, n)
	}
	if held != keys {
		t.Errorf("%d keys, want %d", held, keys)
	}

	// A slot moves, with its keys.
	const slot = 5
	tag := ""
	for i := 0; ; i++ {
		tag = fmt.Sprintf("{%d}", i)
		if n, err := cluster.Nodes[0].Client().ClusterKeySlot(t.Context(), tag).Result(); err != nil || n == slot {
			must.OK(t, err)
			break
		}
	}
	must.OK(t, c.Set(t.Context(), tag, "moved", 0).Err())
	pauses := 0
	must.OK(t, cluster.Move(t.Context(), slot, cluster.Nodes[2], func() { pauses++ }))
	if owner, err := cluster.Owner(t.Context(), slot); err != nil || owner != cluster.Nodes[2] || pauses < 2 {
		t.Errorf("after %d pauses the slot is on %v, %v", pauses, owner, err)
	}
	if got, err := cluster.Nodes[2].Client().Get(t.Context(), tag).Result(); err != nil || got != "moved" {
		t.Errorf("the key that moved is %q, %v", got, err)
	}
	must.OK(t, cluster.Nodes[2].Client().Del(t.Context(), tag).Err())
	must.OK(t, cluster.Move(t.Context(), slot, cluster.Nodes[0], func() {}))

	// What is left of it goes on.
	first := cluster.Nodes[0].Client()
	must.OK(t, first.ClusterDelSlots(t.Context(), 0).Err())
	time.Sleep(500 * time.Millisecond) // Redis looks at what it has left ten times a second
	for _, n := range cluster.Nodes {
		info, err := n.Client().ClusterInfo(t.Context()).Result()
		must.OK(t, err)
		if !strings.Contains(info, "cluster_state:ok") {
			t.Errorf("%s has given up:\n%s", n.Addr(), info)
		}
	}
	must.OK(t, first.ClusterAddSlots(t.Context(), 0).Err())

	lost := size(t, cluster.Nodes[1])
	cluster.Nodes[1].Kill()
	for i := range keys {
		if c.Get(t.Context(), fmt.Sprint("key ", i)).Err() != nil {
			lost--
		}
	}
	if lost != 0 {
		t.Errorf("%d keys more are out of reach than those of the dead node", -lost)
	}
	cluster.Nodes[1].Restart()
	cluster.Wait()
	for i := range keys {
		if err := c.Get(t.Context(), fmt.Sprint("key ", i)).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
}

func TestWatched(t *testing.T) {
	t.Parallel()
	w := redisserver.StartWatched(t)
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: redisserver.MasterName, SentinelAddrs: w.Addrs()})
	defer func() { _ = c.Close() }()
	must.OK(t, c.Set(t.Context(), "key", 1, 0).Err())
	must.OK(t, c.Wait(t.Context(), 1, time.Minute).Err())
	w.Master.Kill()
	w.Promote(t)
	var err error
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(50 * time.Millisecond) {
		if err = c.Incr(t.Context(), "key").Err(); err == nil {
			break
		}
	}
	must.OK(t, err)
	if got, err := w.Replica.Client().Get(t.Context(), "key").Result(); err != nil || got != "2" {
		t.Errorf("the replica that took over has %q, %v", got, err)
	}
}
