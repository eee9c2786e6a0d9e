// Package valkeyconn lets the Redis and Hybrid providers of Trypema reach Redis through a client of
// github.com/valkey-io/valkey-go: a single server, Sentinel or Cluster.
//
// What it implements is redislimit.Conn, by its methods alone.
package valkeyconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/trypema/trypema/internal/adapter"
	"github.com/trypema/trypema/internal/invalid"
)

// Conn is a valkey client as redislimit.Conn. It is safe for concurrent use.
type Conn struct {
	client valkey.Client
}

// New returns a Conn which uses c. It neither asks the server anything nor ever closes c, which stays the
// caller's. If c is nil, or a nil pointer, New of the providers refuses the Conn.
//
// ctx does not end an exchange that waits for a connection which another one is making. The Dialer.Timeout of
// c (5s, if it was not set) does.
func New(c valkey.Client) *Conn {
	if invalid.Nil(c) {
		c = nil
	}
	return &Conn{client: c}
}

// Check returns an error if there is no client, because New was given nil or a nil pointer. New of the
// providers asks it.
func (c *Conn) Check() error {
	if c.client == nil {
		return errors.New("valkeyconn.New got no client; it needs a valkey.Client")
	}
	return nil
}

// OneServer reports whether all keys are on one server: not a Cluster.
func (c *Conn) OneServer() bool {
	return c.client == nil || c.client.Mode() != valkey.ClientModeCluster
}

// Node returns the neighbourhood of 128 slots of a Cluster that has a key, as valkey does not tell on which
// server that is; else "".
func (c *Conn) Node(key string) string {
	if c.OneServer() {
		return ""
	}
	at := valkey.Completed{}.SetSlot(key)
	return adapter.Neighbourhood(at.Slot())
}

// Run reports through answer, once for each i, what the script said when it ran with keys[i] and args[i]: an
// array of int64 and string, else an error. What the server called an error keeps its text, error code first.
// In a Cluster all of keys[i] must be in one slot.
//
// Each run costs one EVALSHA with sha1, or one EVAL with the script if sha1 is empty, in one pipeline for a
// server. In a Cluster, all neighbourhoods of 128 slots are asked at the same time. A node that is slow or
// unavailable delays no answers but those from the neighbourhoods in which its runs of slots end.
//
// No call is sent again after it may have arrived, as it would count twice. So a call also fails whose
// connection turns out to be broken.
func (c *Conn) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	command, code := adapter.Eval(script, sha1)
	adapter.Run("valkeyconn", keys, c.Node, func(which []int, tell func(reply any, err error)) error {
		if err := c.Check(); err != nil {
			return err
		}
		cmds := make([]valkey.Completed, len(which))
		for n, i := range which {
			cmds[n] = c.client.B().Arbitrary(command, code, strconv.Itoa(len(keys[i]))).Keys(keys[i]...).
				Args(args[i]...).Build()
		}
		if len(cmds) == 1 {
			tell(value(c.client.Do(ctx, cmds[0])))
			return nil
		}
		for _, result := range c.client.DoMulti(ctx, cmds...) {
			tell(value(result))
		}
		return nil
	}, answer)
}

// value is the reply in a result.
func value(r valkey.ValkeyResult) (any, error) {
	message, err := r.ToMessage()
	if err != nil && !valkey.IsValkeyNil(err) {
		// valkey takes the code ERR off an error, but not off the text of its message.
		if text, _ := message.ToString(); strings.HasPrefix(text, "ERR ") {
			err = fmt.Errorf("ERR %w", err)
		}
		return nil, err
	}
	reply, _ := message.ToAny() // what is nil, or cannot be parsed, is no array
	return reply, nil
}
