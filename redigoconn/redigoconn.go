// Package redigoconn lets the Redis and Hybrid providers of Trypema reach Redis through a pool of
// github.com/gomodule/redigo: a single server, or whatever the pool dials, such as the primary of Sentinel.
//
// redigo does not support Cluster. If the server is a node of one, its redirections are errors.
//
// What it implements is redislimit.Conn, by its methods alone.
package redigoconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/trypema/trypema/internal/adapter"
	"github.com/trypema/trypema/internal/guard"
)

// Conn is a redigo pool as redislimit.Conn. It is safe for concurrent use.
type Conn struct{ pool *redis.Pool }

// New returns a Conn which uses p. It neither asks the server anything nor ever closes p, which stays the
// caller's. If p is nil, New of the providers refuses the Conn.
//
// An exchange takes one connection of p. If MaxActive is set and Wait is not, an exchange fails while all are
// in use. MaxIdle should be the number of exchanges at a time, as a connection beyond it is dialed for each.
//
// An exchange ends with its ctx, also while it waits for a connection, and its connection is then closed.
// When a connection turns out to be broken, or to lead to a replica, it is closed with all that are idle. So
// after a restart or a failover one exchange fails and the next dials, also without a TestOnBorrow.
//
// Connections that p dials must implement redis.ConnWithContext, as those of redis.Dial do. Others cannot be
// closed like that, and end an exchange by their own timeouts.
func New(p *redis.Pool) *Conn { return &Conn{p} }

// Check returns an error if there is no pool, because New was given nil, or if it has no Dial. New of the
// providers asks it.
func (c *Conn) Check() error {
	switch {
	case c.pool == nil:
		return errors.New("redigoconn.New got no pool; it needs a *redis.Pool")
	case c.pool.Dial == nil && c.pool.DialContext == nil:
		return errors.New("redigoconn.New got a pool without Dial and DialContext; it needs one of them")
	}
	return nil
}

// OneServer reports that all keys are on one server.
func (c *Conn) OneServer() bool { return true }

// Run reports through answer, once for each i, what the script said when it ran with keys[i] and args[i]: an
// array of int64 and string, else an error. What the server called an error keeps its text, error code first,
// unless it redirects to another node of a Cluster.
//
// Each run costs one EVALSHA with sha1, or one EVAL with the script if sha1 is empty, all in one pipeline. No
// call is sent again. If the connection breaks, the runs without an answer get the error.
func (c *Conn) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	command, code := adapter.Eval(script, sha1)
	adapter.Run("redigoconn", keys, nil, func(_ []int, tell func(reply any, err error)) error {
		return c.exchange(ctx, command, code, keys, args, tell)
	}, answer)
}

// exchange sends all runs, and tells of each reply in turn. It returns what kept it from the others.
func (c *Conn) exchange(
	ctx context.Context, command, code string, keys, args [][]string, tell func(reply any, err error),
) error {
	if err := errors.Join(c.Check(), ctx.Err()); err != nil {
		return err
	}
	conn, err := c.get(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	err = pipeline(ctx, conn, command, code, keys, args, tell)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	// The connections that are idle lead to the same server. Each would fail an exchange of its own.
	end(conn)
	for range c.pool.IdleCount() {
		if idle, err := c.get(ctx); err == nil {
			end(idle)
			_ = idle.Close()
		}
	}
	return err
}

// errReplica is the end of a connection to a server that is not the primary any more.
var errReplica = errors.New("redigoconn: the server is a replica")

// pipeline is an exchange on a connection. Its error says that the connection is of no use any more.
func pipeline(
	ctx context.Context, conn redis.Conn, command, code string, keys, args [][]string,
	tell func(reply any, err error),
) error {
	defer endWith(ctx, conn)()
	for i := range keys {
		words := make([]any, 0, 2+len(keys[i])+len(args[i]))
		words = append(words, code, len(keys[i]))
		for _, key := range keys[i] {
			words = append(words, key)
		}
		for _, arg := range args[i] {
			words = append(words, arg)
		}
		if err := conn.Send(command, words...); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	replica := false
	for range keys {
		value, err := conn.Receive()
		said := redis.Error("")
		if err != nil && !errors.As(err, &said) {
			return err
		}
		replica = replica || strings.Contains(string(said), "READONLY ")
		tell(value, explained(err))
	}
	if replica {
		return errReplica
	}
	return nil
}

// get takes a connection of the pool, which may have to dial. The pool may not look at ctx while it does.
func (c *Conn) get(ctx context.Context) (redis.Conn, error) {
	var conn redis.Conn
	got := make(chan error, 1)
	go func() {
		var err error
		panicked := guard.Call("redigoconn: the client", func() { conn, err = c.pool.GetContext(ctx) })
		got <- cmp.Or(panicked, err)
	}()
	select {
	case err := <-got:
		return conn, err
	case <-ctx.Done():
		go func() {
			if <-got == nil {
				_ = conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// ended is a context whose deadline has passed.
var ended = func() context.Context {
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	cancel()
	return ctx
}()

// end closes a connection, which wakes who reads from it or writes to it. Close would only give it back to
// the pool. redigo closes a connection on which a call is made whose context has ended.
func end(conn redis.Conn) { _, _ = redis.ReceiveContext(conn, ended) }

// endWith ends a connection when ctx ends, until stop is called.
func endWith(ctx context.Context, conn redis.Conn) (stop func()) {
	closed := make(chan struct{})
	stopped := context.AfterFunc(ctx, func() {
		defer close(closed)
		end(conn)
	})
	return func() {
		if !stopped() {
			<-closed
		}
	}
}

// explained is an error of the server, with what it means if that is not obvious.
func explained(err error) error {
	if err != nil {
		if code, _, _ := strings.Cut(err.Error(), " "); code == "MOVED" || code == "ASK" {
			return fmt.Errorf("redigoconn: the server is a node of a Cluster, which redigo does not support: %w", err)
		}
	}
	return err
}
