package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/internal/proof/must"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

// hybridlimit and the simulator send the same messages to Redis at the same instants, if they get the same
// calls and the network does the same to them: hybridlimit with its goroutines and locks, in the virtual time
// of testing/synctest.
//
// The histories are such that hybridlimit has one way to go, whichever of its goroutines runs first at an
// instant. So no decision takes dice, and the way to Redis always takes the same time: hybridlimit may make a
// message before or after it has set the pace. Where the window is full the strategy is Suppressed without
// headroom, which decides as Absolute does, but never without the lock, with buckets so short that the table
// has no windows of keys for callers: the simulator has neither.
// Where it is Absolute, keys are called too seldom to become hot. Where messages are lost one call at a time
// waits for a key.
func TestSameMessages(t *testing.T) {
	const full = "--strategy suppressed --hard-limit-factor 1 --bucket 1ms "
	for _, args := range []string{
		full + "--instances 1 --keys 1 --rate 50",
		full + "--instances 3 --keys 2 --rate 10",
		full + "--instances 3 --keys 4 --rate 2",
		full + "--instances 2 --keys 2 --rate 20 --window 1s",
		full + "--instances 4 --keys 2 --rate 20 --sync-interval 20ms --delay 3ms",
		full + "--instances 2 --keys 2 --rate 20 --window 2s --delay 7300us",
		full + "--instances 2 --keys 66 --rate 2.5 --window 2s --duration 6s", // more than go into one message
		full + "--instances 3 --keys 3 --rate 10 --loss 0.3",
		"--load 0.9 --instances 3 --keys 10 --rate 1.2 --window 7s",
		"--load 0.9 --instances 2 --keys 10 --rate 1 --window 7s --loss 0.3",
	} {
		t.Run(args, func(t *testing.T) {
			for run := range explore.Runs(1, 20) {
				seed := explore.Seed(t) + uint64(run)
				s, err := command(t,
					fmt.Sprintf("--window 5s --duration 15s --seed %d %s", seed%(1<<31), args)).resolve()
				must.OK(t, err)
				h := newHistory(s)
				lived, simulated := h.live(t), h.simulate(t)
				for i := range max(len(lived), len(simulated)) {
					if i >= len(lived) || i >= len(simulated) || !reflect.DeepEqual(lived[i], simulated[i]) {
						t.Fatalf("seed %d, message %d of %d and %d\nhybridlimit sends %s\nthe simulator   %s",
							seed, i, len(lived), len(simulated), at(lived, i), at(simulated, i))
					}
				}
				if len(lived) < 10 {
					t.Errorf("seed %d: only %d messages", seed, len(lived))
				}
				t.Logf("seed %d: %d calls, %d messages", seed, len(h.calls), len(lived))
			}
		})
	}
}

// history is what happens to some instances: calls, and what the network does to their exchanges.
type history struct {
	setup
	began   []int64 // when each instance starts
	calls   []made
	holders map[holding]uint64
}

type made struct {
	at       int64
	instance int
	key      int32
}

type fate struct{ lostThere, lostBack bool }

// fate draws what happens to an exchange. It follows from the instant of sending: which keys go together at
// one instant may depend on which goroutine of hybridlimit runs first. Redis answers often enough not to be
// taken for unavailable.
func (h *history) fate(instance int, now int64) (f fate) {
	rng := rand.New(rand.NewPCG(uint64(h.Seed+instance), uint64(now)))
	if now/int64(h.Timeout)%4 == 3 {
		f.lostThere, f.lostBack = rng.Float64() < h.Loss, rng.Float64() < h.Loss
	}
	return f
}

type holding struct {
	instance int
	key      int32
}

// sent is one message.
type sent struct {
	at       int64
	instance int
	key      int32
	farLife  int64
	lease.Message
}

func at(all []sent, i int) string {
	if i >= len(all) {
		return "nothing"
	}
	return fmt.Sprintf("%+v", all[i])
}

func inOrder(all []sent) []sent {
	slices.SortFunc(all, func(a, b sent) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.instance, b.instance), cmp.Compare(a.key, b.key))
	})
	return all
}

// newHistory draws a history: calls for each key at loads that change now and then from nearly nothing to ten
// times the limit. Each instance is called for each key before it expires: when it does depends on its random
// hash. The calls of the first second are so few that none waits for the message of another: hybridlimit may
// then make the next one before or after it takes the first round trip that it has measured for the pace.
func newHistory(s setup) *history {
	rng := rand.New(rand.NewPCG(uint64(s.Seed), 5))
	h := &history{setup: s, holders: make(map[holding]uint64)}
	for range s.Instances {
		h.began = append(h.began, -1-rng.Int64N(int64(s.interval)))
	}
	kept := int64(s.options.Window) + int64(2*time.Second) // or more
	for key := range s.Keys {
		for i := range s.Instances {
			for now := rng.Int64N(1e8); now < int64(s.duration); now += 1e9 + rng.Int64N(kept-1e9) {
				h.calls = append(h.calls, made{now, i, int32(key)})
			}
		}
		load := 0.
		changes := int64(0)
		for now := int64(1e9); now < int64(s.duration); {
			if now >= changes {
				if load = []float64{.02, .3, .9, 1.1, 10}[rng.IntN(5)]; !s.suppressed {
					load = min(load, s.Load)
				}
				changes = now + rng.Int64N(int64(s.options.Window))
			}
			next := now + 1 + int64(rng.ExpFloat64()*1e9/s.Rate/load)
			if now = min(next, changes); now == next {
				h.calls = append(h.calls, made{now, rng.IntN(s.Instances), int32(key)})
			}
		}
	}
	slices.SortFunc(h.calls, func(a, b made) int { return cmp.Compare(a.at, b.at) })
	if s.Loss > 0 {
		last := make(map[holding]int64)
		h.calls = slices.DeleteFunc(h.calls, func(c made) bool {
			of := holding{c.instance, c.key}
			early := last[of] > 0 && c.at-last[of] <= int64(s.Timeout)
			if !early {
				last[of] = c.at
			}
			return early
		})
	}
	return h
}

// live has hybridlimit live through the history.
func (h *history) live(t *testing.T) (all []sent) {
	synctest.Test(t, func(t *testing.T) {
		origin := time.Now().Add(time.Second)
		server := fakeredis.New()
		var mu sync.Mutex
		providers := make([]*hybridlimit.Provider, h.Instances)
		first := make([]int, h.Instances)
		for i := range first {
			first[i] = i
		}
		slices.SortFunc(first, func(a, b int) int { return cmp.Compare(h.began[a], h.began[b]) })
		for _, i := range first {
			time.Sleep(time.Until(origin.Add(time.Duration(h.began[i] + 1))))
			conn := &wire{Server: server, history: h, mu: &mu, all: &all, origin: origin, instance: i}
			p, err := hybridlimit.New(conn, hybridlimit.Options{
				Options: redislimit.Options{
					Options: h.options, Timeout: h.Timeout, RetryInterval: h.retry,
					OnFailure: redislimit.FailClosed,
				},
				SyncInterval: h.interval,
			})
			must.OK(t, err)
			providers[i] = p
		}
		var callers sync.WaitGroup
		for _, c := range h.calls {
			time.Sleep(time.Until(origin.Add(time.Duration(c.at))))
			callers.Go(func() {
				l, rate := h.limiter(providers[c.instance]), trypema.Rate(h.Rate)
				_, err := l.Allow(t.Context(), fmt.Sprint("k", c.key), rate)
				must.Report(t, err)
			})
		}
		callers.Wait()
		time.Sleep(time.Until(origin.Add(h.duration)))
		for _, p := range providers {
			_ = p.Close() // its last messages may be lost
		}
	})
	all = slices.DeleteFunc(inOrder(all), func(m sent) bool { return m.at >= int64(h.duration) })
	for _, m := range all {
		of := holding{m.instance, m.key}
		if h.holders[of] == 0 {
			h.holders[of] = m.Holder
		}
	}
	return all
}

func (h *history) limiter(p *hybridlimit.Provider) trypema.Limiter {
	if h.suppressed {
		return p.Suppressed()
	}
	return p.Absolute()
}

// wire is the way of one instance to Redis.
type wire struct {
	*fakeredis.Server
	*history
	mu       *sync.Mutex // guards all
	all      *[]sent
	origin   time.Time
	instance int
}

var errLost = errors.New("lost")

// Run implements redislimit.Conn.
func (w *wire) Run(
	ctx context.Context, source, sha1 string, keys, args [][]string, answer func(int, []any, error),
) {
	w.mu.Lock()
	now := int64(time.Since(w.origin))
	for i := range keys {
		var far int64
		fmt.Sscan(args[i][2], &far) //nolint:errcheck // it differs then
		for j, name := range keys[i] {
			var key int32
			fmt.Sscanf(strings.TrimPrefix(name, "{trypema:"), "k%d}", &key) //nolint:errcheck // it differs then
			*w.all = append(*w.all, sent{now, w.instance, key, far, redisproto.ParseMessage(args[i][3+j])})
		}
	}
	f := w.fate(w.instance, now)
	w.mu.Unlock()
	fail := func() {
		<-ctx.Done()
		for i := range keys {
			answer(i, nil, errLost)
		}
	}
	if f.lostThere {
		fail()
		return
	}
	time.Sleep(w.history.Delay)
	replies := make([][]any, len(keys))
	w.Server.Run(ctx, source, sha1, keys, args, func(i int, reply []any, _ error) { replies[i] = reply })
	if f.lostBack {
		fail()
		return
	}
	time.Sleep(w.history.Delay)
	for i := range keys {
		answer(i, replies[i], nil)
	}
}

// simulate has the simulator go through the history.
func (h *history) simulate(t *testing.T) []sent {
	s := h.setup
	s.Load = 0 // there are no other calls
	w := newWorld(s)
	n := &network{history: h}
	w.link = n
	for i, one := range w.instances {
		one.started = h.began[i]
		for key := range s.Keys {
			one.account(int32(key)).Holder = h.holders[holding{i, int32(key)}]
		}
	}
	for _, c := range h.calls {
		w.events.push(event{at: c.at, kind: delayed, instance: w.instances[c.instance], key: c.key, made: c.at})
	}
	w.run(t.Context(), func(float64) {})
	return inOrder(n.all)
}

// network is the link that the history describes.
type network struct {
	*history
	all []sent
}

func (n *network) loses(x *exchange) bool {
	f := n.fate(x.from.index, x.began+x.from.started)
	if len(x.answers) > 0 { // it is on its way back
		return f.lostBack
	}
	for _, m := range x.messages {
		n.all = append(n.all, sent{x.from.world.now, x.from.index, m.k.key, x.farLife, m.Message})
	}
	return f.lostThere
}

func (n *network) trip(*exchange) int64 { return int64(n.Delay) }
