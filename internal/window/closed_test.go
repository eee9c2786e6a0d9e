package window

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/trypema/trypema/internal/proof/explore"
)

// listed is a group of a window that is a list of its groups.
type listed struct {
	first, last int64
	Counts
	closed bool
}

// list is a window, with the list of its groups beside it.
type list struct {
	Window
	groups []listed
	at     int64 // now
}

func (l *list) sum() (c Counts) {
	for _, e := range l.groups {
		c = c.Plus(e.Counts)
	}
	return c
}

func (l *list) record(s Span, first, last int64, c Counts) {
	if k := len(l.groups) - 1; k >= 0 {
		if e := &l.groups[k]; !e.closed && last-e.first < s.Bucket {
			e.last, e.Counts = last, e.Plus(c)
			return
		}
		l.groups[k].closed = true
	}
	l.groups = append(l.groups, listed{first: first, last: last, Counts: c})
}

func (l *list) place(s Span, now, at int64, c Counts) {
	if c == (Counts{}) || now-at >= s.Window {
		return
	}
	newest := &l.groups[len(l.groups)-1]
	switch grain := s.grain(now, at); {
	case at > newest.last:
		s.Bucket = grain
		l.record(s, at, at, c)
	case at >= newest.first && newest.last-at < s.Bucket:
		newest.Counts = newest.Plus(c)
	default:
		i := slices.IndexFunc(l.groups, func(e listed) bool { return e.last >= at })
		e := &l.groups[i]
		end := newest.first - 1
		if e != newest {
			if e.last-at < s.Bucket {
				e.Counts = e.Plus(c)
				return
			}
			end = e.last - s.Bucket
		}
		l.groups = slices.Insert(l.groups, i,
			listed{last: max(at, min(at+grain-1, end)), Counts: c, closed: true})
	}
}

func (l *list) resize(s Span, total uint64, keep Keep) {
	if keep == Newest {
		slices.Reverse(l.groups)
	}
	k := 0 // groups that stay
	for ; total > 0 && k < len(l.groups); k++ {
		e := &l.groups[k]
		if e.Observed() > total {
			e.Counts = cut(e.Counts, total)
		}
		total -= e.Observed()
	}
	l.groups = l.groups[:k]
	l.groups[0].Admitted += total
	if keep == Newest {
		slices.Reverse(l.groups)
	}
	if e := &l.groups[k-1]; e.closed {
		e.first = e.last - s.Bucket
	}
}

// check compares the window with the list in every way to look at it.
func (l *list) check(t *testing.T, rng *rand.Rand, g *Groups, s Span) {
	t.Helper()
	i := 0
	for last, c := range l.All(g) {
		if i >= len(l.groups) || l.groups[i].last != last || l.groups[i].Counts != c {
			t.Fatalf("%+v: group %d ends at %d with %+v, want %+v", s, i, last, c, l.groups[i:])
		}
		i++
	}
	have := l.sum()
	if i != len(l.groups) || l.Counts() != have {
		t.Fatalf("%+v: %d groups with %+v, want %d with %+v", s, i, l.Counts(), len(l.groups), have)
	}
	if i == 0 {
		return
	}
	if have.Admitted > 0 {
		limit, left, k := rng.Uint64N(have.Admitted), have.Admitted, 0
		for ; left > limit; k++ {
			left -= l.groups[k].Admitted
		}
		if at, admitted := l.Fits(g, s, limit); at != l.groups[k-1].last+s.Window || admitted != left {
			t.Fatalf("%+v: fits %d at %d with %d, want at %d with %d", s, limit, at, admitted,
				l.groups[k-1].last+s.Window, left)
		}
	}
	after, since := l.groups[rng.IntN(i)].last-rng.Int64N(2), uint64(0)
	for _, e := range l.groups {
		if e.last > after {
			since += e.Observed()
		}
	}
	if got := l.Since(g, after); got != since {
		t.Fatalf("%+v: %d since %d, want %d", s, got, after, since)
	}
	if _, expires, oldest := l.Open(g, s); i > 1 &&
		(expires != l.groups[0].last+s.Window || oldest != l.groups[0].Admitted) {
		t.Fatalf("%+v: the oldest group expires at %d with %d, want %+v", s, expires, oldest, l.groups[0])
	}
}

// chance is what kind of life a window has.
type chance struct {
	*rand.Rand
	declines bool
	calm     int // one in so many steps is not a small one
}

// amount is mostly small, sometimes at the edge of what one word can hold.
func (r chance) amount(s Span) uint64 {
	short := bits.LeadingZeros64(uint64(s.Window)) - 1
	switch r.IntN(4 * r.calm) {
	case 0:
		return 1<<short - uint64(r.IntN(3))
	case 1:
		return 1 << (short - 1)
	case 2:
		return uint64(r.Int64N(math.MaxInt64)) + 1
	}
	return uint64(r.IntN(3)) + 1
}

// events are as many as the window may be given.
func (r chance) events(s Span, have Counts) Counts {
	n := r.amount(s)
	if r.declines && r.IntN(4) == 0 {
		return Counts{Declined: min(n, maxObserved-min(have.Observed(), maxObserved))}
	}
	return Counts{Admitted: min(n, MaxCapacity-min(have.Admitted, MaxCapacity))}
}

func (r chance) wait(l *list, s Span) {
	switch r.IntN(r.calm) {
	case 0:
		l.at += s.Window - r.Int64N(min(s.Window, 3))
	case 1:
		l.at += r.Int64N(s.Window)
	case 2:
		l.at -= r.Int64N(2 * s.Bucket)
	case 3, 4: // to the instant when the oldest group expires, or just before
		l.at = max(l.at, l.oldest()+s.Window-r.Int64N(2))
	default:
		l.at += r.Int64N(s.Bucket + s.Bucket/2 + 1)
	}
}

func (r chance) step(l *list, g *Groups, s Span) {
	r.wait(l, s)
	op := 50
	if r.IntN(r.calm) < 6 {
		op = r.IntN(100)
	}
	now := max(l.at, l.last)
	if op >= 97 { // it is not seen to that what has expired is gone
		now += r.Int64N(4 * s.Window)
	} else {
		now = l.Advance(g, s, l.at)
		for len(l.groups) > 0 && now-l.groups[0].last >= s.Window {
			l.groups = l.groups[1:]
		}
	}
	have := l.sum()
	c := r.events(s, have)
	switch {
	case (op >= 60 && op < 97) && len(l.groups) == 0:
	case op < 60 || op >= 97:
		if c != (Counts{}) {
			first := now - r.Int64N(s.Bucket)*int64(op%2)
			l.RecordGroup(g, s, first, now, c)
			l.record(s, first, now, c)
		}
	case op < 70:
		at := now - r.Int64N(s.Window)
		l.Place(g, s, now, at, at, c)
		l.place(s, now, at, c)
	case op < 75:
		if closes, _, _ := l.Open(g, s); l.Now() < closes {
			last := l.Now() + r.Int64N(closes-l.Now())
			l.Join(last, c.Admitted)
			newest := &l.groups[len(l.groups)-1]
			newest.last = max(newest.last, last)
			newest.Admitted += c.Admitted
		}
	case op < 92:
		total := have.Observed() - min(have.Observed()-1, uint64(r.IntN(12)))
		switch {
		case op == 75:
			total = r.Uint64() | 1
		case op == 76:
			total = r.amount(s)
		case op < 84:
			total = have.Observed() + min(r.amount(s), math.MaxUint64-have.Observed())
		}
		keep := Keep(op % 2)
		l.Resize(g, s, total, keep)
		l.resize(s, total, keep)
	case op < 94:
		l.Clear(g)
		l.Window, l.groups = Window{}, nil
	default:
		l.Replace(g, s, now, 7)
		l.groups = []listed{{first: now, last: now, Counts: Counts{Admitted: 7}}}
	}
}

// held is the number of words in blocks that are not free.
func (g *Groups) held() (words int) {
	s := reflect.ValueOf(&g.Slab).Elem()
	pages, free := s.FieldByName("pages"), s.FieldByName("free")
	for i := range pages.Len() {
		words += pages.Index(i).Len()
	}
	for class := range free.Len() {
		words -= free.Index(class).Len() << class
	}
	return words - int(s.FieldByName("limit").Uint()-s.FieldByName("bump").Uint())
}

// Windows that share their memory hold what a list of groups holds, whatever happens, and no block but their
// own.
func TestClosedGroupsAgreeWithList(t *testing.T) {
	lengths := []int64{1, 2, 3, 10, 100, 1000, 1<<20 - 1, 1 << 20, 1e6, 1e10, 30 * 86400 * 1e9, 25 * 365 * 86400 * 1e9}
	first := explore.Seed(t)
	for run := range uint64(explore.Runs(100, 10_000)) {
		seed := first + run
		r := chance{rand.New(rand.NewPCG(seed, 0)), false, 0}
		r.declines = r.IntN(3) == 0
		r.calm = []int{10, 100, 1000}[r.IntN(3)]
		s := Span{Window: lengths[r.IntN(len(lengths))]}
		s.Bucket = max(1, s.Window/[]int64{1, 2, 3, 5, 7, 10, 20, 100, 1000}[r.IntN(9)])
		g := new(Groups)
		var lists [3]list
		for range 600 {
			l := &lists[r.IntN(len(lists))]
			if l.at > math.MaxInt64-8*s.Window { // there is no time left
				break
			}
			r.step(l, g, s)
			l.check(t, r.Rand, g, s)
			if r.IntN(100) == 0 {
				to := new(Groups)
				for i := range lists {
					lists[i].Move(g, to)
				}
				g = to
			}
			own := 0
			for i := range lists {
				if lists[i].block != 0 {
					own += 1 << lists[i].class
				}
			}
			if held := g.held(); held != own {
				t.Fatalf("seed %d: %d words held, %d owned", seed, held, own)
			}
		}
	}
}

// The only closed group may be much older than the event after it: nobody has seen to it that what has
// expired is gone.
func TestClosedGroupOfLongAgo(t *testing.T) {
	s := Span{Window: 1000, Bucket: 10}
	var g Groups
	var w Window
	// the instants of two groups of one word are apart by less than 2048
	for _, at := range []int64{100, 100 + 2048} {
		w.RecordGroup(&g, s, at, at, Counts{Admitted: 1})
	}
	if got := w.closedAt(&g, 0).last; got != 100 {
		t.Errorf("it ended at %d, want 100", got)
	}
	if w.Advance(&g, s, 2148); w.Counts().Admitted != 1 {
		t.Errorf("%+v counted, of which one event has expired", w.Counts())
	}
}
