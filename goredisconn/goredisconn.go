// Package goredisconn lets the Redis and Hybrid providers of Trypema reach Redis through a client of
// github.com/redis/go-redis/v9: a single server, Sentinel (NewFailoverClient), Cluster or Ring.
//
// It requires nothing of Trypema. What it implements is redislimit.Conn, by its methods alone.
package goredisconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
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
func New(c redis.UniversalClient) *Conn {
	conn := new(Conn)
	if none(c) {
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

// none reports whether there is nothing behind a client.
func none(c redis.UniversalClient) bool {
	v := reflect.ValueOf(c)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
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
func (c *Conn) Node(key string) string {
	if c.nodeOf == nil {
		return ""
	}
	node, err := c.nodeOf(noWait, key)
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
	if len(keys) == 0 {
		return
	}
	if err := c.Check(); err != nil {
		for i := range keys {
			answer(i, nil, err)
		}
		return
	}
	r := run{Conn: c, ctx: ctx, verb: "evalsha", script: sha1, keys: keys, args: args, answer: answer}
	if sha1 == "" {
		r.verb, r.script = "eval", script
	}
	r.answered = make([]bool, len(keys))
	groups := r.byNode()
	var others sync.WaitGroup
	for _, which := range groups[1:] {
		others.Go(func() { r.guarded(which) })
	}
	r.guarded(groups[0])
	others.Wait()
}

// run is what one Run is about.
type run struct {
	*Conn
	ctx          context.Context
	verb, script string // evalsha and a SHA-1, or eval and a script
	keys         [][]string
	args         [][]string
	answer       func(i int, reply []any, err error)
	answered     []bool // which have an answer
}

// byNode returns the indices of the runs, those on one node together. Runs that are together wait for each
// other; the client decides where a key is sent.
func (r *run) byNode() [][]int {
	all := make([]int, len(r.keys))
	for i := range all {
		all[i] = i
	}
	if r.nodeOf == nil || len(r.keys) == 1 {
		return [][]int{all}
	}
	groups := make(map[*redis.Client][]int)
	for i, keys := range r.keys {
		node, err := r.nodeOf(r.ctx, keys[0])
		if err != nil {
			return [][]int{all} // and what is wrong comes up again when they are sent
		}
		groups[node] = append(groups[node], i)
	}
	return slices.Collect(maps.Values(groups))
}

// guarded makes the calls in which. If the client panics, in one of its hooks perhaps, that is the answer to
// those that have none: on a goroutine of Run it would end the process.
func (r *run) guarded(which []int) {
	defer func() {
		p := recover()
		for _, i := range which {
			if p != nil && !r.answered[i] {
				r.tell(i, nil, panicked(p))
			}
		}
	}()
	r.send(which)
}

func panicked(p any) error {
	return fmt.Errorf("goredisconn: the client panicked: %v\n\n%s", p, debug.Stack())
}

// tell answers one run.
func (r *run) tell(i int, reply []any, err error) {
	r.answered[i] = true
	r.answer(i, reply, err)
}

// once is a command that go-redis does not send again after a network error.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// send makes the calls in which, and answers them.
func (r *run) send(which []int) {
	cmds := make([]redis.Cmder, len(which))
	for n, i := range which {
		args := make([]any, 0, 3+len(r.keys[i])+len(r.args[i]))
		args = append(args, r.verb, r.script, len(r.keys[i]))
		for _, key := range r.keys[i] {
			args = append(args, key)
		}
		for _, arg := range r.args[i] {
			args = append(args, arg)
		}
		cmds[n] = once{redis.NewCmd(r.ctx, args...)}
	}

	var err error
	if len(cmds) == 1 && r.nodeOf == nil {
		err = r.client.Process(r.ctx, cmds[0])
	} else { // in a Cluster also for one: outside a pipeline, it may first ask for COMMAND, for longer than ctx lasts
		pipe := r.client.Pipeline()
		_ = pipe.BatchProcess(r.ctx, cmds...) // only queues
		_, err = pipe.Exec(r.ctx)
	}

	for n, i := range which {
		reply, err := result(cmds[n].(once).Cmd, err)
		r.tell(i, reply, err)
	}
}

// result is the reply to cmd. If cmd was never sent, the reason is err.
func result(cmd *redis.Cmd, err error) ([]any, error) {
	if cmd.Err() != nil || cmd.Val() != nil {
		err = cmd.Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	reply, ok := cmd.Val().([]any)
	if !ok {
		return nil, fmt.Errorf("goredisconn: reply is of type %T, not an array", cmd.Val())
	}
	for n, element := range reply {
		switch element.(type) {
		case int64, string:
		default:
			return nil, fmt.Errorf("goredisconn: element %d of the reply is of type %T, "+
				"neither int64 nor string", n, element)
		}
	}
	return reply, nil
}
