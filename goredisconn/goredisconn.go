// Package goredisconn lets the Redis and Hybrid providers of Trypema reach Redis through a client of
// github.com/redis/go-redis/v9: a single server, Sentinel (NewFailoverClient), Cluster or Ring.
//
// What it implements is redislimit.Conn, by its methods alone.
package goredisconn

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/adapter"
	"github.com/trypema/trypema/internal/invalid"
)

// Conn is a go-redis client as redislimit.Conn. It is safe for concurrent use.
type Conn struct {
	client redis.UniversalClient
	nodeOf func(ctx context.Context, key string) (*redis.Client, error) // nil where all keys are in one place
}

// New returns a Conn which uses c. It neither asks the server anything nor ever closes c, which stays the
// caller's. If c is nil, or a nil pointer, New of the providers refuses the Conn.
//
// What ends an exchange that takes too long is the ReadTimeout of c (3s, if it was not set) and, if c was
// made with ContextTimeoutEnabled, the deadline of ctx. When ctx is canceled, nothing more is sent.
//
// With MaxRetries of -1 and DialerRetries of 1, a connection that is refused fails at once, and says so. By
// default the client dials until the deadline, and the providers learn only that there was no answer.
func New(c redis.UniversalClient) *Conn {
	conn := new(Conn)
	if invalid.Nil(c) {
		return conn
	}
	conn.client = c
	switch c := c.(type) {
	case interface { // Cluster
		MasterForKey(ctx context.Context, key string) (*redis.Client, error)
	}:
		conn.nodeOf = c.MasterForKey
	case interface { // Ring
		GetShardClientForKey(key string) (*redis.Client, error)
	}:
		conn.nodeOf = func(_ context.Context, key string) (*redis.Client, error) { return c.GetShardClientForKey(key) }
	}
	return conn
}

// Check returns an error if there is no client, because New was given nil or a nil pointer. New of the
// providers asks it.
func (c *Conn) Check() error {
	if c.client == nil {
		return errors.New("goredisconn.New got no client; it needs a redis.UniversalClient")
	}
	return nil
}

// OneServer reports whether all keys are on one server: neither a Cluster nor a Ring.
func (c *Conn) OneServer() bool { return c.nodeOf == nil }

// noWait is a context with which a client answers from what it knows, without I/O.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Node returns the address of the server that has a key in a Cluster or Ring, as far as the client knows;
// else "".
func (c *Conn) Node(key string) string { return c.node(noWait, key) }

// node is Node for a client that may ask for what it does not know.
func (c *Conn) node(ctx context.Context, key string) string {
	if c.nodeOf == nil {
		return ""
	}
	node, err := c.nodeOf(ctx, key)
	if err != nil {
		return ""
	}
	return node.Options().Addr
}

// Run reports through answer, once for each i, what the script said when it ran with keys[i] and args[i]: an
// array of int64 and string, else an error. What the server called an error keeps its text, error code first.
// In a Cluster all of keys[i] must be in one slot.
//
// Each run costs one EVALSHA with sha1, or one EVAL with the script if sha1 is empty. Several are a pipeline
// for each node that has some of the keys. All nodes are asked at the same time, and a node that is slow or
// unavailable does not delay the answers of the others.
//
// No call is sent again after it may have arrived, whatever MaxRetries says: it would count twice. So a call
// also fails whose connection turns out to be broken.
func (c *Conn) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	command, code := adapter.Eval(script, sha1)
	node := func(key string) string { return c.node(ctx, key) }
	adapter.Run("goredisconn", keys, node, func(which []int, tell func(reply any, err error)) error {
		if err := c.Check(); err != nil {
			return err
		}
		cmds := make([]redis.Cmder, len(which))
		for n, i := range which {
			words := make([]any, 0, 3+len(keys[i])+len(args[i]))
			words = append(words, command, code, len(keys[i]))
			for _, key := range keys[i] {
				words = append(words, key)
			}
			for _, arg := range args[i] {
				words = append(words, arg)
			}
			cmds[n] = once{redis.NewCmd(ctx, words...)}
		}
		err := c.send(ctx, cmds)
		for _, cmd := range cmds {
			tell(value(cmd.(once).Cmd, err))
		}
		return nil
	}, answer)
}

// once is a command that go-redis does not send again after a network error.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// send makes some calls.
func (c *Conn) send(ctx context.Context, cmds []redis.Cmder) error {
	if len(cmds) == 1 && c.nodeOf == nil {
		return c.client.Process(ctx, cmds[0])
	}
	// In a Cluster also for one: outside a pipeline, it may first ask for COMMAND, for longer than ctx lasts.
	pipe := c.client.Pipeline()
	_ = pipe.BatchProcess(ctx, cmds...) // only queues
	_, err := pipe.Exec(ctx)
	return err
}

// value is the reply to cmd. If cmd was never sent, the reason is err.
func value(cmd *redis.Cmd, err error) (any, error) {
	if cmd.Err() != nil || cmd.Val() != nil {
		err = cmd.Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	return cmd.Val(), nil
}
