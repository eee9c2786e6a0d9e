package onredis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/internal/window"
)

// Numbers of somebody else in a window, as large as can be, in the wrong order or from another time, in the
// header, the table of holders or the log: scripts begin such a window again, and answer. TestHostileContents
// does the same to whole providers, whose time is real: there, nearly all contents have expired.
func TestHostileNumbers(t *testing.T) {
	client := redisserver.Start(t).Client()
	for _, letter := range []string{"a", "s", "ha", "hs"} {
		t.Run(letter, func(t *testing.T) {
			t.Parallel()
			first := explore.Seed(t)
			for seed := first; seed != first+uint64(explore.Runs(2, 3000)); seed++ {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					h := newHostility(t, client, letter, seed)
					for n := range explore.Length(50, 100) {
						h.try(n)
					}
				})
			}
		})
	}
}

// Contents that have misled a script: it answered with a number that cannot be, admitted more than it should,
// made a string of megabytes, or never ended.
func TestHostileNumbersKnown(t *testing.T) {
	const never = 1 << 53
	client := redisserver.Start(t).Client()
	for _, test := range []struct {
		what, letter string
		edit         func(b edited)
		then         func(h *hostility, key string)
	}{
		{"the newest group ends before it begins, and a call comes in its bucket", "a", func(b edited) {
			b.put(22, 0)
			for _, at := range []int{29, 36, 43, 50} {
				b.put(at, 1<<55)
			}
		}, (*hostility).bound},
		{"there is an oldest group, of no time", "a", func(b edited) {
			b.put(43, never)
			b.put(65, never-1)
		}, (*hostility).bound},
		{"groups that are not in order are cut", "s", func(b edited) {
			b.put(22, 1<<50)
			b.put(29, 1<<50)
			b.put(104+7, 1<<50)
			b.put(65, 1<<50)
			b.put(104+21+7, 2)
			b.put(104+21+14, 1<<50)
		}, func(h *hostility, key string) {
			_, err := h.one.Set(h.Context(), key, trypema.Always(), 1<<50+1, trypema.KeepOldest)
			h.check(err)
		}},
		{"running counts are at their end", "ha", func(b edited) {
			b.put(7, never-100)
			b.put(22, never-90)
			b.put(65, never-98)
			b.put(b.log()+7, never-98)
			b.put(b.log()+21+7, never-95)
		}, func(h *hostility, key string) {
			h.settle(h.names(key)[0], lease.Message{Holder: 9, Seq: 1, Capacity: 1000, NearLife: 1, Groups: []lease.Group{{Counts: window.Counts{Admitted: 200}}}})
		}},
		{"a reservation is in a group that is not in order", "ha", func(b edited) {
			b.put(b.log()+7, 5)
			b.put(b.log()+21+7, 3)
			b.put(65, 5)
		}, func(h *hostility, key string) {
			h.commit(h.names(key)[0], h.clock.Now()-2*h.span.Bucket)
		}},
		{"another holder has more than there is, and what is on lease does not say so", "ha", func(b edited) {
			b.put(111, 1) // it is looked at now, and then as soon as it has aged out
			b.put(120+15, 1<<55)
			b.put(120+22, 1_800_000_000_006_000-1_000_000+1)
		}, func(h *hostility, key string) {
			granted := uint64(0)
			for holder := range uint64(2) {
				granted += h.settle(h.names(key)[0], lease.Message{
					Holder: 1000 + holder, Seq: 1, Capacity: 20, Need: 10, NearLife: 100_000,
				}).Grant
				h.clock.Advance(1)
			}
			if granted != 10 {
				h.Errorf("%d granted of 20, of which 6 are used", granted)
			}
		}},
		{"there is room for more holders than there are", "ha", func(b edited) {
			b[118], b[119] = 0, 100
			b.put(43, never)
			b[61] = 0
		}, func(h *hostility, key string) {
			h.commit(h.names(key)[0], h.clock.Now()-3*h.span.Bucket)
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			h := newHostility(t, client, test.letter, 0)
			b := h.sound()
			test.edit(b)
			h.what = fmt.Sprintf("%x", b)
			name := h.names("bad")[0]
			h.client.Set(t.Context(), name, []byte(b), time.Minute)
			test.then(h, "bad")
			if n := h.client.StrLen(t.Context(), name).Val(); n > 1<<12 {
				t.Errorf("%s has %d bytes", name, n)
			}
		})
	}
}

// hostility is a key that is in order, from which contents are made, and one that gets these.
type hostility struct {
	*testing.T
	client   *redis.Client
	rng      *rand.Rand
	letter   string
	clock    *rig.Clock
	span     window.Span
	server   *redisproto.Server
	messages messages // of the Hybrid provider
	one      trypema.Limiter
	several  *trypema.Bound
	prefix   string
	what     string // has been done
}

const hostileCapacity = 6

func newHostility(t *testing.T, client *redis.Client, letter string, seed uint64) *hostility {
	rng := rand.New(rand.NewPCG(seed, 0))
	o := trypema.Options{Window: time.Second, HardLimitFactor: 1}
	o.Bucket = []time.Duration{time.Millisecond, 10 * time.Millisecond, time.Second}[rng.IntN(3)]
	h := &hostility{T: t, client: client, rng: rng, letter: letter, prefix: rig.Unique("hostile")}
	clock, conn := rig.NewClock(goredisconn.New(client))
	h.clock, h.server = clock, redisproto.NewServer(conn)
	h.span = window.Span{Window: o.Window.Microseconds(), Bucket: o.Bucket.Microseconds()}
	h.messages = messages{
		rng: rng, span: h.span, asks: map[string]map[uint64]*lease.Message{}, absolute: letter == "ha",
		waiting: rng.IntN(2) == 0,
	}
	if len(letter) > 1 {
		return h
	}
	ro := rig.Patient(t, o)
	ro.Prefix = h.prefix
	p, strategy := rig.Open(t, conn, ro), trypema.StrategyAbsolute
	if letter == "s" {
		strategy = trypema.StrategySuppressed
	}
	h.one = rig.Strategy(p, letter == "s")
	var err error
	limits := []trypema.Limit{trypema.AtMost(hostileCapacity, o.Window), trypema.AtMost(2*hostileCapacity, 3*o.Window)}
	if h.several, err = p.Bind(strategy, limits...); err != nil {
		t.Fatal(err)
	}
	return h
}

// sound returns a window of three groups, of which two are closed, in order, with what one holder has.
func (h *hostility) sound() edited {
	for i := range uint64(3) {
		h.clock.Advance(2 * h.span.Bucket)
		if len(h.letter) > 1 {
			h.settle(h.names("good")[0], lease.Message{
				Holder: 1, Seq: i + 1, Capacity: 1000, Hold: 1, NearLife: 1000,
				Base: window.Counts{Admitted: 2 * i}, Groups: []lease.Group{{Counts: window.Counts{Admitted: 2}}},
			})
		} else if _, err := h.one.AllowN(h.Context(), "good", 1000, 2); err != nil {
			h.Fatal(err)
		}
	}
	b, err := h.client.Get(h.Context(), h.names("good")[0]).Bytes()
	h.check(err)
	return b
}

// edited is the content of a window: see load.lua.
type edited []byte

// log returns where the log begins, in one of the Hybrid provider.
func (b edited) log() int { return 120 + 43*int(b[118]) }

// put writes a number of seven bytes.
func (b edited) put(at int, n uint64) {
	var all [8]byte
	binary.LittleEndian.PutUint64(all[:], n)
	copy(b[at:at+7], all[:])
}

func (h *hostility) names(key string) []string {
	name := fmt.Sprintf("{%s:%s}:%s:", h.prefix, key, h.letter)
	if len(h.letter) > 1 {
		return []string{name + "1s"}
	}
	return []string{name + "1s", name + "3s"}
}

// try makes a content of what somebody has written, and has a few calls find it.
func (h *hostility) try(n int) {
	h.what = fmt.Sprint("content ", n)
	for range 1 + h.rng.IntN(8) {
		h.call("good", 1000)
		h.advance()
	}
	key := fmt.Sprint("bad", n)
	var contents [][]byte
	for _, name := range h.names("good") {
		b, _ := h.client.Get(h.Context(), name).Bytes()
		contents = append(contents, b)
	}
	i := h.rng.IntN(len(contents))
	contents[i] = h.spoil(contents[i])
	put := func() {
		for i, name := range h.names(key) {
			if len(contents[i]) > 0 {
				h.client.Set(h.Context(), name, contents[i], time.Minute)
			}
		}
		h.what += fmt.Sprintf("\nput %x", contents)
	}
	put()
	if h.rng.IntN(2) == 0 {
		h.bound(key)
	}
	for range 4 {
		h.advance()
		h.call(key, hostileCapacity)
		if h.rng.IntN(4) == 0 {
			put()
		}
	}
	for _, name := range h.names(key) {
		if n := h.client.StrLen(h.Context(), name).Val(); n > 1<<17 {
			h.Errorf("%s\n%s has %d bytes", h.what, name, n)
		}
		h.client.Del(h.Context(), name)
	}
}

// bound makes calls in less than a window that cost as much as it may hold, and more.
func (h *hostility) bound(key string) {
	admitted := uint64(0)
	for i, n := range []uint64{hostileCapacity, hostileCapacity, 1, 1} {
		h.clock.Advance([]int64{0, 1, h.span.Bucket / 5}[h.rng.IntN(3)])
		if len(h.letter) > 1 {
			// A holder that has admitted nothing yet, and dies.
			a := h.settle(h.names(key)[0], lease.Message{
				Holder: 1000 + uint64(i), Seq: 1, Capacity: hostileCapacity, Need: n, Near: n, NearLife: 100_000,
				Keeps: h.letter == "ha", Whole: true, New: true, Far: n,
			})
			admitted += a.Grant
			continue
		}
		h.what += fmt.Sprintf("\nat %d AllowN of %d", h.clock.Now(), n)
		d, err := h.one.AllowN(context.Background(), key, trypema.Per(hostileCapacity, time.Second), n)
		if h.check(err); d.Allowed {
			admitted += n
		}
	}
	if admitted > hostileCapacity {
		h.Fatalf("%s\n%d of %d admitted", h.what, admitted, hostileCapacity)
	}
}

func (h *hostility) advance() {
	w, b := h.span.Window, h.span.Bucket
	h.clock.Advance([]int64{0, 0, 1, b, w / 10, w / 3, w - 1, w, 3 * w}[min(h.rng.IntN(9), h.rng.IntN(9))])
}

func (h *hostility) check(err error) {
	if err != nil {
		h.Fatalf("%s\n%v", h.what, err)
	}
}

// call makes any call.
func (h *hostility) call(key string, capacity uint64) {
	if len(h.letter) > 1 {
		h.message(key)
		return
	}
	ctx, rate, n := context.Background(), trypema.Per(float64(capacity), time.Second), 1+h.rng.Uint64N(3)
	what := h.rng.IntN(8)
	h.what += fmt.Sprintf("\nat %d call %d of %d", h.clock.Now(), what, n)
	var d trypema.Decision
	var err error
	switch what {
	case 0:
		_, err = h.one.Peek(ctx, key, rate, n)
	case 1:
		_, err = h.one.Usage(ctx, key, rate)
	case 2:
		keep := []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}[h.rng.IntN(3)]
		_, err = h.one.Set(ctx, key, trypema.Always(), h.rng.Uint64N(10), keep)
	case 3:
		d, err = h.several.AllowN(ctx, key, n)
	case 4:
		_, err = h.several.Usage(ctx, key)
	case 5:
		var r *trypema.Reservation
		life := []time.Duration{time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second}[h.rng.IntN(4)]
		if r, err = h.several.Reserve(ctx, key, n, life); err == nil && r.Allowed {
			h.advance()
			if cerr := r.Commit(ctx, h.rng.Uint64N(4)); cerr != nil && !redisproto.IsUnreadable(cerr) {
				err = cerr // it is not sent again
			}
		}
	default:
		d, err = h.one.AllowN(ctx, key, rate, n)
	}
	h.check(err)
	if d.Fallback {
		h.Fatalf("%s\ndecided without Redis", h.what)
	}
}

// message has a holder settle; now and then somebody sets the key, or settles a reservation.
func (h *hostility) message(key string) {
	name := h.names(key)[0]
	switch h.rng.IntN(12) {
	case 0:
		keep := []trypema.History{trypema.Replace, trypema.KeepNewest, trypema.KeepOldest}[h.rng.IntN(3)]
		args := append(redisproto.SpanArgs(h.span), "Always()", strconv.Itoa(h.rng.IntN(9)), keep.String(), h.letter)
		h.what += fmt.Sprintf("\nat %d set %v", h.clock.Now(), args)
		r := h.run(name, func(all *redisproto.Scripts) redisproto.Script { return all.Set }, args)
		r.Count(1)
		r.Count(1 << 53)
		h.check(r.Done())
	case 1:
		h.commit(name, h.clock.Now()-h.rng.Int64N(h.span.Window))
	default:
		ask := h.messages.next(key, h.clock.Now())
		ask.Count = h.rng.IntN(2) == 0
		h.settle(name, ask)
	}
}

// commit settles a reservation that was recorded at an instant.
func (h *hostility) commit(name string, from int64) {
	at := strconv.FormatInt(from, 10)
	args := append(redisproto.SpanArgs(h.span), h.letter, "3", "5")
	args = append(append(args, redisproto.SpanArgs(h.span)...), at, at)
	h.what += fmt.Sprintf("\nat %d commit %v", h.clock.Now(), args)
	r := h.run(name, func(all *redisproto.Scripts) redisproto.Script { return all.Commit }, args)
	r.Count(redisproto.Most)
	r.Count(redisproto.Most)
	h.check(r.Done())
}

// settle sends a message, and looks at the answer.
func (h *hostility) settle(name string, ask lease.Message) lease.Answer {
	h.what += fmt.Sprintf("\nat %d settle %+v", h.clock.Now(), ask)
	args := append(redisproto.SpanArgs(h.span), "10000000", redisproto.Message(ask))
	r := h.run(name, func(all *redisproto.Scripts) redisproto.Script { return all.Settle }, args)
	a, err := redisproto.ReadAnswer(r, ask.Whole)
	if errors.Is(err, redisproto.ErrAnswered) {
		err = nil
	}
	h.check(errors.Join(err, r.Done()))
	var sum window.Counts
	for _, g := range a.Groups {
		sum = sum.Plus(g.Counts)
	}
	if ask.Whole && !a.Stale && sum != a.Live || a.Grant > ask.Capacity || a.Life < 0 || a.Next < -1 ||
		a.Next > 4*h.span.Window {
		h.Errorf("%s\n%+v, groups %+v", h.what, a, sum)
	}
	return a
}

// run runs a script as the provider does, and returns its reply.
func (h *hostility) run(
	name string, pick func(*redisproto.Scripts) redisproto.Script, args []string,
) *redisproto.Reader {
	var reply []any
	redisproto.Run(context.Background(), h.server, pick, []string{name},
		func(items []string, _ bool) [][]string { return [][]string{items} },
		func([]string) ([]string, []string) { return []string{name}, args },
		func(_ []string, got []any, err error, last bool) (again, mend []string) {
			if fault, ok := redisproto.NewReader(got).Fault(); ok && err == nil {
				err = errors.New(fault)
			}
			if redisproto.IsUnreadable(err) && !last {
				return []string{name}, nil
			}
			h.check(err)
			reply = got
			return nil, nil
		},
		func(string) redisproto.Windows {
			return redisproto.Windows{Kind: h.letter, Keys: []string{name}, Spans: []window.Span{h.span}}
		})
	return redisproto.NewReader(reply)
}

// spoil changes some numbers.
func (h *hostility) spoil(good []byte) []byte {
	b := slices.Clone(good)
	header := map[string]int{"a": 72, "s": 104, "ha": 120, "hs": 120}[h.letter]
	ledger := len(h.letter) > 1
	table := header
	if ledger && len(b) > 120 {
		table = header + 43*(int(b[118])+int(b[119])<<8)
	}
	var places, widths []int
	add := func(at int, sizes ...int) {
		for _, w := range sizes {
			if at+w <= len(b) {
				places, widths = append(places, at), append(widths, w)
			}
			at += w
		}
	}
	add(0, 7, 7, 1, 7, 7, 7, 7, 7, 7, 4, 4, 7)
	if header > 72 {
		add(72, 7, 7, 4, 7, 7)
	}
	if ledger {
		add(104, 7, 7, 2)
		for at := header; at < table; at += 43 {
			add(at, 8, 5, 2, 7, 7, 7, 7)
		}
	}
	for at := table; at < len(b); at += 21 {
		add(at, 7, 7, 7)
	}
	if len(places) == 0 {
		return b
	}
	get := func(i int) (n uint64) {
		for j := widths[i] - 1; j >= 0; j-- {
			n = n<<8 | uint64(b[places[i]+j])
		}
		return n
	}
	for range 1 + h.rng.IntN(4) {
		i := h.rng.IntN(len(places))
		if h.rng.IntN(2) == 0 {
			i = h.rng.IntN(min(len(places), 20)) // the header
		}
		now, w := uint64(h.clock.Now()), uint64(h.span.Window)
		n := []uint64{0, 1, get(i) + 1, get(i) - 1, 1<<56 - 1, 1 << 55, 1 << 53, 1<<53 - 1, 1 << 51, 1<<51 - 1, 1 << 50, 32768, 65535, 1 << 24, 1<<24 - 1, now, now + 1, now - w, now - w/2, now + w, now + w/2,
			get(h.rng.IntN(len(places))), get(h.rng.IntN(len(places))), get(h.rng.IntN(len(places)))}[h.rng.IntN(24)]
		if h.rng.IntN(10) == 0 {
			n = h.rng.Uint64()
		}
		var all [8]byte
		binary.LittleEndian.PutUint64(all[:], n)
		copy(b[places[i]:places[i]+widths[i]], all[:])
	}
	switch h.rng.IntN(12) {
	case 0:
		b = b[:h.rng.IntN(len(b)+1)]
	case 1:
		b = b[:len(b)-min(len(b), 21)]
	case 2:
		b = append(b, b[len(b)-min(len(b), 21):]...)
	}
	return b
}
