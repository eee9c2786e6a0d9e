package script

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// picky is a Conn to a server that answers each key with itself, unless it refuses the run.
type picky struct {
	oneServer bool
	refuse    func(script string, keys []string) error
	runs      [][]string // KEYS
}

func (c *picky) OneServer() bool { return c.oneServer }

func (c *picky) Run(_ context.Context, script, _ string, keys, _ [][]string, answer func(int, []any, error)) {
	c.runs = append(c.runs, keys...)
	for i := range keys {
		var reply []any
		err := c.refuse(script, keys[i])
		if err == nil {
			for _, k := range keys[i] {
				reply = append(reply, k)
			}
		}
		answer(i, reply, err)
	}
}

func TestRun(t *testing.T) {
	errStruct := errors.New("ERR user_script:1: Script attempted to access nonexistent global variable 'struct'")
	errSlot := errors.New("CROSSSLOT Keys in request don't hash to the same slot")
	errOther := errors.New("ERR other")
	noStruct := func(script string, _ []string) error {
		if !strings.Contains(script, "local struct = {}") {
			return errStruct
		}
		return nil
	}
	crossSlot := func(_ string, keys []string) error {
		if len(keys) > 1 {
			return errSlot
		}
		return nil
	}
	always := func(err error) func(string, []string) error {
		return func(string, []string) error { return err }
	}
	for _, test := range []struct {
		name   string
		many   bool
		refuse func(script string, keys []string) error
		first  int // runs of the first exchange, and of what follows from it
		second int // once all is known
		err    error
	}{
		{"a server that can all", false, always(nil), 2, 2, nil},
		{"many servers, known before", true, always(nil), 3, 3, nil},
		{"many servers that seem one", false, crossSlot, 1 + 3, 3, nil}, // c is alone in its run
		{"no struct", false, noStruct, 4, 2, nil},
		{"neither", false, func(script string, keys []string) error {
			return errors.Join(noStruct(script, keys), crossSlot(script, keys))
		}, 2 + 2 + 2, 3, nil},
		{"an error that no other form helps", false, always(errOther), 2, 2, errOther},
		{"no struct in any form", false, always(errStruct), 4, 2, errStruct},
		{"an error of a key that is alone", true, always(errSlot), 3, 3, errSlot},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &picky{oneServer: !test.many, refuse: test.refuse}
			s := NewServer(c)
			for i, want := range []int{test.first, test.second} {
				c.runs = nil
				answers := make(map[string]error)
				Run(t.Context(), s, func(s *Scripts) Script { return s.Set }, []string{"a", "b", "c"},
					func(items []string, together bool) [][]string {
						n := 1
						if together {
							n = 2
						}
						return slices.Collect(slices.Chunk(items, n))
					},
					func(parcel []string) (keys, args []string) { return parcel, nil },
					func(parcel []string, reply []any, err error) {
						for j, item := range parcel {
							if _, twice := answers[item]; twice || err == nil && reply[j] != item {
								t.Errorf("%s: %v, %v, answered before: %v", item, reply, err, twice)
							}
							answers[item] = err
						}
					})
				if items := slices.Sorted(maps.Keys(answers)); !slices.Equal(items, []string{"a", "b", "c"}) {
					t.Errorf("answered: %v", items)
				}
				for item, err := range answers {
					if !errors.Is(err, test.err) {
						t.Errorf("%s: %v, want %v", item, err, test.err)
					}
				}
				if len(c.runs) != want {
					t.Errorf("exchange %d: runs with %v, want %d", i+1, c.runs, want)
				}
			}
		})
	}
}

// Keys that move between nodes are asked for again, alone, until they have arrived or the context ends. Others do not wait.
func TestRunWhileKeysMove(t *testing.T) {
	for _, code := range []string{"TRYAGAIN Multiple keys request during rehashing of slot", "ASK 1000 127.0.0.1:7001", "MOVED 1000 127.0.0.1:7001"} {
		for _, arrives := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := &picky{refuse: func(_ string, keys []string) error {
					if keys[0] == "moving" && (!arrives || time.Since(began) < 95*time.Millisecond) {
						return errors.New(code)
					}
					return nil
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 995*time.Millisecond)
				defer cancel()
				took, wrong := make(map[string]time.Duration), make(map[string]error)
				Run(ctx, NewServer(c), func(s *Scripts) Script { return s.Set }, []string{"still", "moving"},
					func(items []string, _ bool) [][]string { return slices.Collect(slices.Chunk(items, 1)) },
					func(parcel []string) (keys, args []string) { return parcel, nil },
					func(parcel []string, _ []any, err error) { took[parcel[0]], wrong[parcel[0]] = time.Since(began), err })
				want, wantErr := 100*time.Millisecond, ""
				if !arrives {
					want, wantErr = 995*time.Millisecond, code
				}
				if took["still"] != 0 || wrong["still"] != nil {
					t.Errorf("%s: another key took %v, %v", code, took["still"], wrong["still"])
				}
				if err := wrong["moving"]; took["moving"] != want || (err == nil) != arrives || err != nil && err.Error() != wantErr {
					t.Errorf("%s: after %v: %v, want %q after %v", code, took["moving"], err, wantErr, want)
				}
				if runs := len(c.runs); runs != 1+int((want-1)/movingPause)+1+1 {
					t.Errorf("%s: %d runs", code, runs)
				}
			})
		}
	}
}
