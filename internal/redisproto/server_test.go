package redisproto

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema/internal/window"
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

// windowOf returns the windows of an item.
func windowOf(item string) Windows {
	spans := []window.Span{{Window: 10, Bucket: 1}, {Window: 20, Bucket: 2}}
	return Windows{Kind: "a", Keys: []string{item, item + "2"}, Spans: spans}
}

// damaged is a Conn to a server with keys that scripts cannot read before they were mended so often.
type damaged struct {
	left  map[string]int
	fails error // of mend.lua
	asked map[string]int
	mends []string // ARGV, and the key
}

func (c *damaged) OneServer() bool { return true }

func (c *damaged) Run(
	_ context.Context, script, _ string, keys, args [][]string, answer func(int, []any, error),
) {
	for i, parcel := range keys {
		if script == plain.Mend.Source {
			c.mends = append(c.mends, strings.Join(append(args[i], parcel...), " "))
			c.left[parcel[0]]--
			if c.fails != nil {
				answer(i, nil, c.fails)
				continue
			}
			answer(i, []any{int64(1), int64(0)}, nil)
			continue
		}
		var reply []any
		var err error
		for _, key := range parcel {
			c.asked[key]++
			switch {
			case c.left[key] <= 0:
				reply = append(reply, key)
			case strings.HasPrefix(key, "error"):
				err = errors.New("ERR user_script:17: bad argument #2 to 'unpack' (data string too short)")
			default:
				reply = append(reply, "NOTAWINDOW")
			}
		}
		answer(i, reply, err)
	}
}

// A key that cannot be read is looked through and asked for again, then begun again and asked for again, and
// then it is told; others are answered at once.
func TestRunMends(t *testing.T) {
	const look, all = "10 1 a 0 10 1 20 2 ", "10 1 a 1 10 1 20 2 " // ARGV
	for _, test := range []struct {
		name        string
		key         string
		left        int
		asked       int
		mends       string
		unreadable  bool
		once, fails bool
	}{
		{"one that is in order", "k", 0, 1, "", false, false, false},
		{"a fault", "k", 1, 2, look + "k k2", false, false, false},
		{"one that seems to be in order", "k", 2, 3, look + "k k2; " + all + "k k2", false, false, false},
		{"one that stays so", "k", 9, 3, look + "k k2; " + all + "k k2; " + all + "k k2", true, false, false},
		{"one whose caller wants no more", "k", 1, 1, look + "k k2", true, true, false},
		// It is asked for with others, and then alone.
		{"a script that ends", "error", 1, 3, look + "error error2", false, false, false},
		{"no mend.lua", "k", 1, 2, look + "k k2", false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &damaged{left: map[string]int{test.key: test.left}, asked: map[string]int{}}
			if test.fails {
				c.fails = errors.New("NOPERM")
			}
			s := NewServer(c)
			told := map[string]string{}
			Run(t.Context(), s, func(s *Scripts) Script { return s.Set }, []string{"healthy", test.key},
				func(items []string, together bool) [][]string {
					if together {
						return [][]string{items}
					}
					return each(items, false)
				},
				func(parcel []string) (keys, args []string) { return parcel, nil },
				func(parcel []string, reply []any, err error, last bool) (again, mend []string) {
					for i, item := range parcel {
						outcome := "answered"
						if IsUnreadable(err) || err == nil && reply[i] == notAWindow {
							if !last && !test.once {
								again = append(again, item)
								continue
							}
							mend = append(mend, item)
							outcome = "unreadable"
						}
						if told[item] != "" {
							t.Errorf("%s is told twice", item)
						}
						told[item] = outcome
					}
					return again, mend
				}, windowOf)
			want := map[bool]string{false: "answered", true: "unreadable"}[test.unreadable]
			if told[test.key] != want || told["healthy"] != "answered" || c.asked[test.key] != test.asked {
				t.Errorf("told %v, want %s; asked %v times, want %d", told, want, c.asked, test.asked)
			}
			if got := strings.Join(c.mends, "; "); got != test.mends {
				t.Errorf("mended %q, want %q", got, test.mends)
			}
			mended := uint64(len(c.mends))
			if test.fails {
				mended = 0
			}
			if got := s.Mended().Load(); got != mended {
				t.Errorf("%d were mended, want %d", got, mended)
			}
		})
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
					func(parcel []string, reply []any, err error, _ bool) (again, mend []string) {
						for j, item := range parcel {
							if _, twice := answers[item]; twice || err == nil && reply[j] != item {
								t.Errorf("%s: %v, %v, answered before: %v", item, reply, err, twice)
							}
							answers[item] = err
						}
						return nil, nil
					}, windowOf)
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

// Keys that move between nodes are asked for again, alone, until they have arrived or the context ends.
// Others do not wait.
func TestRunWhileKeysMove(t *testing.T) {
	for _, code := range []string{"TRYAGAIN Multiple keys request during rehashing of slot",
		"ASK 1000 127.0.0.1:7001", "MOVED 1000 127.0.0.1:7001"} {
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
					func(parcel []string, _ []any, err error, _ bool) (again, mend []string) {
						took[parcel[0]], wrong[parcel[0]] = time.Since(began), err
						return nil, nil
					}, windowOf)
				want, wantErr := 100*time.Millisecond, ""
				if !arrives {
					want, wantErr = 995*time.Millisecond, code
				}
				if took["still"] != 0 || wrong["still"] != nil {
					t.Errorf("%s: another key took %v, %v", code, took["still"], wrong["still"])
				}
				if err := wrong["moving"]; took["moving"] != want || (err == nil) != arrives ||
					err != nil && err.Error() != wantErr {
					t.Errorf("%s: after %v: %v, want %q after %v", code, took["moving"], err, wantErr, want)
				}
				if runs := len(c.runs); runs != 1+int((want-1)/movingPause)+1+1 {
					t.Errorf("%s: %d runs", code, runs)
				}
			})
		}
	}
}
