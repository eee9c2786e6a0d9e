package redisserver

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/trypema/trypema/internal/proof/realredis"
)

// slots is how many slots a Redis Cluster has.
const slots = 16384

// Cluster is a Redis Cluster of three masters without replicas. What holds no slots that are lost goes on
// without those that do.
type Cluster struct {
	// Nodes are the masters, each with a third of the slots in ascending order.
	Nodes []*Server

	migrating sync.Mutex // nodes that migrate to each other at once would wait for each other
}

// StartCluster returns a Cluster that is complete: every node knows all others, and answers for its slots. It
// takes some seconds. See Start for the rest.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 3 {
		c.Nodes = append(c.Nodes, Start(t,
			"--cluster-enabled", "yes",
			"--cluster-announce-ip", "127.0.0.1",
			"--cluster-require-full-coverage", "no",
			"--cluster-node-timeout", "30000", // a machine that is busy is no reason to give a node up
		))
	}
	if err := c.form(); err != nil {
		t.Fatal("redisserver: no Cluster came about:", err)
	}
	c.Wait()
	return c
}

// Wait returns when the Cluster is complete, as after StartCluster.
func (c *Cluster) Wait() {
	for _, n := range c.Nodes {
		n.t.Helper()
		if err := n.complete(len(c.Nodes)); err != nil {
			n.t.Fatal("redisserver: the Cluster is not complete:", err)
		}
	}
}

// Addrs returns where the nodes listen.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

func addrs(servers []*Server) (all []string) {
	for _, s := range servers {
		all = append(all, s.Addr())
	}
	return all
}

// form makes a Cluster of the nodes, in words that Redis 6.2 understands.
func (c *Cluster) form() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, n := range c.Nodes {
		from, to := slots*i/len(c.Nodes), slots*(i+1)/len(c.Nodes)
		if err := n.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return err
		}
		if err := n.client.ClusterAddSlotsRange(ctx, from, to-1).Err(); err != nil {
			return err
		}
		for _, other := range c.Nodes[:i] { // hearsay would do, but takes its time
			if err := n.client.ClusterMeet(ctx, "127.0.0.1", strconv.Itoa(other.server.Port())).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete returns when the node knows of so many masters which, together, answer for all slots.
func (s *Server) complete(masters int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return realredis.Eventually(ctx, func() error {
		info, err := s.client.ClusterInfo(ctx).Result()
		if err != nil {
			return err
		}
		for _, want := range []string{
			"cluster_state:ok\r\n",
			fmt.Sprintf("cluster_slots_ok:%d\r\n", slots),
			fmt.Sprintf("cluster_known_nodes:%d\r\n", masters),
			fmt.Sprintf("cluster_size:%d\r\n", masters),
		} {
			if !strings.Contains(info, want) {
				return fmt.Errorf("%s has no %q in its CLUSTER INFO:\n%s", s.Addr(), want, info)
			}
		}
		return nil
	})
}

// Move moves a slot to another node while callers use it, as resharding does: one key after the other, with a
// pause after each. Meanwhile keys are on two nodes, and callers are told to ask the other one.
func (c *Cluster) Move(ctx context.Context, slot int, to *Server, pause func()) error {
	target, err := to.client.ClusterMyID(ctx).Result()
	if err != nil {
		return err
	}
	from, err := c.Owner(ctx, slot)
	if err != nil || from == to {
		return err
	}
	source, err := from.client.ClusterMyID(ctx).Result()
	if err != nil {
		return err
	}
	if err := to.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", source).Err(); err != nil {
		return err
	}
	if err := from.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", target).Err(); err != nil {
		return err
	}
	for {
		pause()
		keys, err := from.client.ClusterGetKeysInSlot(ctx, slot, 1).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		c.migrating.Lock()
		err = from.client.Do(ctx, "MIGRATE", "127.0.0.1", to.server.Port(), "", 0, patience.Milliseconds(),
			"KEYS", keys[0]).Err()
		c.migrating.Unlock()
		if err != nil {
			return err
		}
	}
	for _, n := range append([]*Server{to, from}, c.Nodes...) {
		if err := n.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", target).Err(); err != nil {
			return err
		}
	}
	return nil
}

// Owner returns the node that has a slot.
func (c *Cluster) Owner(ctx context.Context, slot int) (*Server, error) {
	ranges, err := c.Nodes[0].client.Do(ctx, "CLUSTER", "SLOTS").Slice()
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		r := r.([]any) // first and last slot, and nodes, of which the first is the master: host, port, name
		first, last, master := r[0].(int64), r[1].(int64), r[2].([]any)
		for _, n := range c.Nodes {
			if first <= int64(slot) && int64(slot) <= last && n.Addr() == fmt.Sprint(master[0], ":", master[1]) {
				return n, nil
			}
		}
	}
	return nil, fmt.Errorf("no node has slot %d", slot)
}
