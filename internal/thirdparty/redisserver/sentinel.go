package redisserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/proof/realredis"
)

// MasterName is what Sentinels call the master that they watch.
const MasterName = "master"

// Watched is a master and its replica, and the Sentinels that have the replica take over when the master is
// gone.
type Watched struct {
	Master, Replica *Server
	Sentinels       []*Server
}

// StartWatched returns a master that its replica is in step with, and three Sentinels that know of all. They
// give up a server only after minutes, as on a busy machine one may be silent for seconds: Promote says when.
// See Start for the rest; args are for master and replica.
func StartWatched(t testing.TB, args ...string) *Watched {
	t.Helper()
	w := &Watched{Master: Start(t, args...)}
	w.Replica = Start(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(w.Master.server.Port()), "--repl-diskless-sync-delay", "0"}, args...)...)
	for range 3 {
		server, err := realredis.StartWith(context.Background(), func(port int, dir string) ([]string, error) {
			file := filepath.Join(dir, "sentinel.conf") // which it writes to
			text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 2\n"+
				"sentinel down-after-milliseconds %[3]s 300000\nsentinel failover-timeout %[3]s 60000\n", port, dir, MasterName, w.Master.server.Port())
			return []string{file, "--sentinel"}, os.WriteFile(file, []byte(text), 0o600)
		})
		w.Sentinels = append(w.Sentinels, newServer(t, server, err))
	}
	if err := w.complete(); err != nil {
		t.Fatal("redisserver: the Sentinels do not know of all:", err)
	}
	return w
}

// Addrs returns where the Sentinels listen.
func (w *Watched) Addrs() []string { return addrs(w.Sentinels) }

// Promote has the Sentinels make the replica the master, and returns when all of them have. The master must
// be gone.
func (w *Watched) Promote(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// A Sentinel that has not heard from the replica lately finds no good one.
	err := realredis.Eventually(ctx, func() error { return w.Sentinels[0].client.Do(ctx, "SENTINEL", "FAILOVER", MasterName).Err() })
	for _, s := range w.Sentinels {
		if err == nil {
			err = realredis.Eventually(ctx, func() error {
				at, err := s.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
				if err == nil && (len(at) != 2 || at[1] != strconv.Itoa(w.Replica.server.Port())) {
					err = fmt.Errorf("%s says that the master is %v", s.Addr(), at)
				}
				return err
			})
		}
	}
	if err != nil {
		t.Fatal("redisserver: the replica does not take over:", err)
	}
}

// complete returns when the replica is in step, and each Sentinel knows of it and of the others.
func (w *Watched) complete() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range w.Sentinels {
		err := realredis.Eventually(ctx, func() error {
			master := redis.NewMapStringStringCmd(ctx, "SENTINEL", "MASTER", MasterName)
			if err := s.client.Process(ctx, master); err != nil {
				return err
			}
			of := master.Val()
			if of["num-slaves"] != "1" || of["num-other-sentinels"] != strconv.Itoa(len(w.Sentinels)-1) ||
				of["flags"] != "master" {
				return fmt.Errorf("%s says %v", s.Addr(), of)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return realredis.Eventually(ctx, func() error {
		role, err := w.Replica.client.Do(ctx, "ROLE").Slice()
		if err == nil && (len(role) < 4 || role[3] != "connected") {
			err = fmt.Errorf("the replica is %v", role)
		}
		return err
	})
}
