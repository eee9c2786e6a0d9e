// Package adapter is what the adapters to clients of Redis share. Each adapter is a module that requires its
// client and this module, which requires nothing.
//
// An adapter that was released builds with every later version of this package: its exported names and
// signatures do not change.
package adapter

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/trypema/trypema/internal/guard"
)

// Eval returns the command that runs a script, and its first argument: EVALSHA and sha1, or EVAL and the
// script if sha1 is empty.
func Eval(script, sha1 string) (command, argument string) {
	if sha1 == "" {
		return "EVAL", script
	}
	return "EVALSHA", sha1
}

// neighbours is how many slots of a Cluster make a neighbourhood: keys that are mostly on one node, as a node
// holds runs of slots.
const (
	slots      = 16384
	neighbours = 128
)

// neighbourhoods are the names of the neighbourhoods.
var neighbourhoods = func() (all [slots / neighbours]string) {
	for i := range all {
		all[i] = fmt.Sprintf("slots %d to %d", i*neighbours, (i+1)*neighbours-1)
	}
	return all
}()

// Neighbourhood returns the name of the 128 slots of a Cluster that a slot is one of. For clients that do not
// tell which node has a slot, it takes the place of the node.
func Neighbourhood(slot uint16) string { return neighbourhoods[slot/neighbours] }

// Run is the Run of a redislimit.Conn, for an adapter of that name. The runs of each node are a group, and
// all groups are sent at the same time. If node is nil, or returns "" for a key, there is one group.
//
// send sends a group, whose runs have the indices in which, and passes each reply to tell, in the order of
// which. Runs without a reply are answered with the error that send returns, or with its panic: on a
// goroutine of Run, that would end the process.
func Run(
	name string, keys [][]string, node func(key string) string,
	send func(which []int, tell func(reply any, err error)) error,
	answer func(i int, reply []any, err error),
) {
	group := func(which []int) {
		next := 0 // all before it are answered
		tell := func(reply any, err error) {
			i := which[next]
			next++
			list, err := array(name, reply, err)
			answer(i, list, err)
		}
		var err error
		if panicked := guard.Call(name+": the client", func() { err = send(which, tell) }); panicked != nil {
			err = panicked
		}
		for next < len(which) {
			tell(nil, err)
		}
	}
	if len(keys) == 0 {
		return
	}
	all := groups(keys, node)
	var others sync.WaitGroup
	for _, which := range all[1:] {
		others.Go(func() { group(which) })
	}
	group(all[0])
	others.Wait()
}

// groups returns the indices of the runs, those on one node together.
func groups(keys [][]string, node func(key string) string) [][]int {
	all := make([]int, len(keys))
	for i := range all {
		all[i] = i
	}
	if node == nil || len(keys) == 1 {
		return [][]int{all}
	}
	byNode := make(map[string][]int)
	for i, of := range keys {
		at := node(of[0])
		if at == "" {
			return [][]int{all}
		}
		byNode[at] = append(byNode[at], i)
	}
	return slices.Collect(maps.Values(byNode))
}

// array returns a reply as redislimit.Conn has it.
func array(name string, reply any, err error) ([]any, error) {
	if err != nil {
		return nil, err
	}
	list, ok := text(reply).([]any)
	if !ok {
		return nil, fmt.Errorf("%s: reply is of type %T, not an array", name, text(reply))
	}
	for i, element := range list {
		switch element := text(element).(type) {
		case int64, string:
			list[i] = element
		default:
			return nil, fmt.Errorf("%s: element %d of the reply is of type %T, neither int64 nor string",
				name, i, element)
		}
	}
	return list, nil
}

// text returns a value, as a string if it is bytes.
func text(value any) any {
	if b, ok := value.([]byte); ok {
		return string(b)
	}
	return value
}
