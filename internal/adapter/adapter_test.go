package adapter_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trypema/trypema/internal/adapter"
)

type tell = func(reply any, err error)

// runs makes a Run with a key for each of some nodes. It returns the groups that were sent, and the answers.
func runs(
	t *testing.T, nodes []string, send func(which []int, tell tell) error,
) (sent [][]int, answers []string) {
	t.Helper()
	keys, answers := make([][]string, len(nodes)), make([]string, len(nodes))
	for i, node := range nodes {
		keys[i] = []string{node}
	}
	var mu sync.Mutex
	adapter.Run("xconn", keys, func(key string) string { return key }, func(which []int, tell tell) error {
		mu.Lock()
		sent = append(sent, which)
		mu.Unlock()
		return send(which, tell)
	}, func(i int, reply []any, err error) {
		if answers[i] != "" {
			t.Errorf("run %d is answered twice", i)
		}
		first, _, _ := strings.Cut(fmt.Sprint(reply, err), "\n")
		answers[i] = first
	})
	slices.SortFunc(sent, slices.Compare)
	return sent, answers
}

func TestGroups(t *testing.T) {
	for _, c := range []struct {
		nodes []string
		want  [][]int
	}{
		{nil, nil},
		{[]string{""}, [][]int{{0}}},
		{[]string{"a"}, [][]int{{0}}},
		{[]string{"", ""}, [][]int{{0, 1}}},
		{[]string{"a", "b", "a"}, [][]int{{0, 2}, {1}}},
		{[]string{"a", "b", ""}, [][]int{{0, 1, 2}}},
	} {
		// Groups are sent at the same time: each waits for all.
		var all sync.WaitGroup
		all.Add(len(c.want))
		sent, answers := runs(t, c.nodes, func(which []int, tell tell) error {
			all.Done()
			all.Wait()
			for _, i := range which {
				tell([]any{int64(i)}, nil)
			}
			return nil
		})
		if !reflect.DeepEqual(sent, c.want) {
			t.Errorf("nodes %q: sent %v, want %v", c.nodes, sent, c.want)
		}
		for i, answer := range answers {
			if want := fmt.Sprintf("[%d] <nil>", i); answer != want {
				t.Errorf("nodes %q: run %d: %q, want %q", c.nodes, i, answer, want)
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	one := func() []any { return []any{int64(1), "text", []byte("bytes")} }
	for _, c := range []struct {
		name string
		send func(tell tell) error
		want string
	}{
		{"a reply", func(tell tell) error { tell(one(), nil); return nil }, "[1 text bytes] <nil>"},
		{"an error", func(tell tell) error { tell(one(), errors.New("ERR no")); return nil }, "[] ERR no"},
		{"a number", func(tell tell) error { tell(1, nil); return nil },
			"[] xconn: reply is of type int, not an array"},
		{"bytes", func(tell tell) error { tell([]byte("x"), nil); return nil },
			"[] xconn: reply is of type string, not an array"},
		{"nested", func(tell tell) error { tell([]any{int64(1), nil}, nil); return nil },
			"[] xconn: element 1 of the reply is of type <nil>, neither int64 nor string"},
		{"no reply, and why", func(tell) error { return errors.New("closed") }, "[] closed"},
		{"no reply", func(tell) error { return nil }, "[] xconn: reply is of type <nil>, not an array"},
		{"a panic", func(tell) error { panic("broken") }, "[] xconn: the client panicked: broken"},
		{"a panic after a reply", func(tell tell) error { tell(one(), nil); panic("broken") },
			"[1 text bytes] <nil>"},
	} {
		_, answers := runs(t, []string{"a", "b"}, func(_ []int, tell tell) error { return c.send(tell) })
		for i, answer := range answers {
			if answer != c.want {
				t.Errorf("%s: run %d: %q, want %q", c.name, i, answer, c.want)
			}
		}
	}
}

func TestNeighbourhood(t *testing.T) {
	for slot, want := range map[uint16]string{
		0: "slots 0 to 127", 127: "slots 0 to 127", 128: "slots 128 to 255", 16383: "slots 16256 to 16383",
	} {
		if got := adapter.Neighbourhood(slot); got != want {
			t.Errorf("slot %d: %q, want %q", slot, got, want)
		}
	}
}

func TestEval(t *testing.T) {
	for sha1, want := range map[string]string{"abc": "EVALSHA abc", "": "EVAL return 1"} {
		if command, argument := adapter.Eval("return 1", sha1); command+" "+argument != want {
			t.Errorf("%q: %s %s, want %s", sha1, command, argument, want)
		}
	}
}
