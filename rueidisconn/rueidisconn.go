// Package rueidisconn lets the Redis and Hybrid providers of Trypema reach Redis through a client of
// github.com/redis/rueidis: a single server, Sentinel or Cluster.
//
// It requires nothing of Trypema. What it implements is redislimit.Conn, by its methods alone.
package rueidisconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// neighbours is how many slots of a Cluster make a neighbourhood: keys that are mostly on one node, as a node
// holds runs of slots. On which node, rueidis does not tell.
const (
	slots      = 16384
	neighbours = 128
)

// Conn is a rueidis client as redislimit.Conn. It is safe for concurrent use.
type Conn struct {
	client rueidis.Client
}

// New returns a Conn which uses c. It neither asks the server anything nor ever closes c, which stays the
// caller's. If c is nil, or a nil pointer, New of the providers refuses the Conn.
//
// ctx does not end an exchange that waits for a connection which another one is making. The Dialer.Timeout of
// c (5s, if it was not set) does.
func New(c rueidis.Client) *Conn {
	if none(c) {
		c = nil
	}
	return &Conn{client: c}
}

// Check returns an error if there is no client, because New was given nil or a nil pointer. New of the
// providers asks it.
func (c *Conn) Check() error {
	if c.client == nil {
		return errors.New("rueidisconn.New got no client; it needs a rueidis.Client")
	}
	return nil
}

// none reports whether there is nothing behind a client.
func none(c rueidis.Client) bool {
	v := reflect.ValueOf(c)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// OneServer reports whether all keys are on one server: not a Cluster.
func (c *Conn) OneServer() bool {
	return c.client == nil || c.client.Mode() != rueidis.ClientModeCluster
}

// names are those of the neighbourhoods.
var names = func() (all [slots / neighbours]string) {
	for i := range all {
		all[i] = fmt.Sprintf("slots %d to %d", i*neighbours, (i+1)*neighbours-1)
	}
	return all
}()

// Node returns the neighbourhood of 128 slots of a Cluster that has a key, as rueidis does not tell on which
// server that is; else "".
func (c *Conn) Node(key string) string {
	if c.OneServer() {
		return ""
	}
	at := rueidis.Completed{}.SetSlot(key)
	return names[at.Slot()/neighbours]
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
	if len(keys) == 0 {
		return
	}
	if err := c.Check(); err != nil {
		for i := range keys {
			answer(i, nil, err)
		}
		return
	}
	r := run{Conn: c, ctx: ctx, verb: "EVALSHA", script: sha1, keys: keys, args: args, answer: answer}
	if sha1 == "" {
		r.verb, r.script = "EVAL", script
	}
	r.answered = make([]bool, len(keys))
	groups := r.byNeighbours()
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
	verb, script string // EVALSHA and a SHA-1, or EVAL and a script
	keys         [][]string
	args         [][]string
	answer       func(i int, reply []any, err error)
	answered     []bool // which have an answer
}

// byNeighbours returns the indices of the runs, in a Cluster neighbours together. Runs that are together wait
// for each other; the client decides where a key is sent.
func (r *run) byNeighbours() [][]int {
	cluster := len(r.keys) > 1 && r.client.Mode() == rueidis.ClientModeCluster
	groups := make(map[uint16][]int)
	var group uint16
	for i, keys := range r.keys {
		if cluster {
			at := rueidis.Completed{}.SetSlot(keys[0])
			group = at.Slot() / neighbours
		}
		groups[group] = append(groups[group], i)
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
	return fmt.Errorf("rueidisconn: the client panicked: %v\n\n%s", p, debug.Stack())
}

// tell answers one run.
func (r *run) tell(i int, reply []any, err error) {
	r.answered[i] = true
	r.answer(i, reply, err)
}

// send makes the calls in which, and answers them.
func (r *run) send(which []int) {
	cmds := make([]rueidis.Completed, len(which))
	for n, i := range which {
		cmds[n] = r.client.B().Arbitrary(r.verb, r.script,
			strconv.Itoa(len(r.keys[i]))).Keys(r.keys[i]...).Args(r.args[i]...).Build()
	}

	var results []rueidis.RedisResult
	if len(cmds) == 1 {
		results = []rueidis.RedisResult{r.client.Do(r.ctx, cmds[0])}
	} else {
		results = r.client.DoMulti(r.ctx, cmds...)
	}

	for n, i := range which {
		reply, err := result(results[n])
		r.tell(i, reply, err)
	}
}

// result is the reply in r.
func result(r rueidis.RedisResult) ([]any, error) {
	message, err := r.ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		// rueidis takes the code ERR off an error, but not off the text of its message.
		if text, _ := message.ToString(); strings.HasPrefix(text, "ERR ") {
			err = fmt.Errorf("ERR %w", err)
		}
		return nil, err
	}
	value, _ := message.ToAny() // what is nil, or cannot be parsed, is no array
	reply, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("rueidisconn: reply is of type %T, not an array", value)
	}
	for n, element := range reply {
		switch element.(type) {
		case int64, string:
		default:
			return nil, fmt.Errorf("rueidisconn: element %d of the reply is of type %T, "+
				"neither int64 nor string", n, element)
		}
	}
	return reply, nil
}
