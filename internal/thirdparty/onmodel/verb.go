package onmodel

import (
	"context"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/redislimit"
)

func (f *Fleet) usage(t *rapid.T) {
	m, key := f.drawMember(t), rapid.SampledFrom(keys[:3]).Draw(t, "key")
	if rapid.Bool().Draw(t, "several") {
		f.lookAll(m, key)
	} else {
		f.look(m, place{key, f.Options.Window})
	}
}

// look asks for the usage of a window, and judges it.
func (f *Fleet) look(m *member, p place) {
	from := time.Now()
	u, err := f.limiter(m).Usage(context.Background(), p.key, rateOf(f.capacity[p.window], p.window))
	f.judgeUsage(m, p, u, err, from)
}

func (f *Fleet) lookAll(m *member, key string) {
	from := time.Now()
	all, err := f.multi(m, f.windows()).Usage(context.Background(), key)
	for i, w := range f.windows() {
		u := trypema.Usage{}
		if err == nil {
			u = all[i]
		}
		f.judgeUsage(m, place{key, w}, u, err, from)
	}
}

func (f *Fleet) judgeUsage(m *member, p place, u trypema.Usage, err error, from time.Time) {
	to := time.Now()
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Usage(%q, %v) since %v: %+v, %v", m.name, p.key, p.window, from.Sub(f.began), u, err)
	if took := to.Sub(from); took > f.Options.Timeout {
		f.fault("Usage of %q took %v", p.key, took)
	}
	if err != nil {
		f.unavailable(m, "Usage", p.key, err, from, to)
		return
	}
	r := f.record(p)
	admitted, declined := f.counts(p, m, from, to)
	f.Figures.Usages++
	c := f.capacity[p.window]
	if a := u.Total - u.Declined; u.Declined > u.Total || a < admitted.low || a > admitted.high || u.Declined < declined.low || u.Declined > declined.high ||
		u.Limit != c || u.Remaining != c-min(c, a) || u.SuppressionFactor < 0 || u.SuppressionFactor > 1 {
		f.fault("%s: Usage(%q, %v): %+v, want %+v admitted and %+v declined, of %d", m.name, p.key, p.window,
			u, admitted, declined, c)
	}
	r.sync(m, from, to)
}

// unavailable judges the error of a verb that no policy answers.
func (f *Fleet) unavailable(m *member, verb, key string, err error, from, to time.Time) {
	f.Figures.Errors++
	if !errors.Is(err, redislimit.ErrUnavailable) || !f.excused(m, from, to) {
		f.fault("%s of %q: %v", verb, key, err)
	}
}

// flush has an instance settle all it has, or all of them, upon which all agree.
func (f *Fleet) flush(t *rapid.T) {
	members := f.members
	if rapid.Bool().Draw(t, "one") {
		members = []*member{f.drawMember(t)}
	}
	good := true
	for _, m := range members {
		good = f.settle("Flush", m, func() error { return m.Flush(context.Background()) }) && good
	}
	if good && len(members) == len(f.members) {
		for _, p := range f.places() {
			if p.window == f.Options.Window {
				for _, m := range f.members {
					f.look(m, p)
				}
			}
		}
	}
}

// settle has an instance settle, by Flush or Close, and reports whether it did.
func (f *Fleet) settle(verb string, m *member, do func() error) bool {
	from := time.Now()
	err := do()
	to := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("", "%s: %s since %v: %v", m.name, verb, from.Sub(f.began), err)
	if err != nil && !f.troubled(from, to) {
		f.fault("%s of %s: %v", verb, m.name, err)
	}
	if err == nil {
		for _, r := range f.records {
			r.sync(m, from, to)
		}
	}
	return err == nil
}

func (f *Fleet) set(t *rapid.T) {
	m, p := f.drawMember(t), place{rapid.SampledFrom(keys[:3]).Draw(t, "key"), f.Options.Window}
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0: // several windows
		windows := rapid.SampledFrom([][]time.Duration{{p.window}, {3 * p.window, p.window / 4}}).Draw(t,
			"windows")
		from := time.Now()
		err := f.multi(m, windows).Delete(context.Background(), p.key)
		for _, w := range windows {
			f.judgeSet(m, place{p.key, w}, trypema.Always(), 0, trypema.Replace, nil, err, from)
		}
	case 1:
		from := time.Now()
		err := f.limiter(m).Delete(context.Background(), p.key)
		f.judgeSet(m, p, trypema.Always(), 0, trypema.Replace, nil, err, from)
	default:
		near := rapid.Uint64Range(0, 10).Draw(t, "near")
		when := drawCondition(t, near)
		total := rapid.SampledFrom([]uint64{0, 1, 3, 20, 60}).Draw(t, "total")
		keep := drawHistory(t)
		from := time.Now()
		got, err := f.limiter(m).Set(context.Background(), p.key, when, total, keep)
		f.judgeSet(m, p, when, total, keep, &got, err, from)
	}
}

func (f *Fleet) judgeSet(
	m *member, p place, when trypema.Condition, total uint64, keep trypema.History, got *trypema.SetResult,
	err error, from time.Time,
) {
	to := time.Now()
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Set(%q, %v, %v, %d, %v) since %v: %+v, %v", m.name, p.key, p.window, when, total, keep,
		from.Sub(f.began), got, err)
	if took := to.Sub(from); took > f.Options.Timeout {
		f.fault("Set of %q took %v", p.key, took)
	}
	r := f.record(p)
	if err != nil { // it may have been done
		f.unavailable(m, "Set", p.key, err, from, to)
		r.doubt()
		r.events = append(r.events,
			&event{at: p, from: from, to: to, by: m, admitted: span{0, total}, declined: span{0, total}, cut: true})
		return
	}
	admitted, declined := f.counts(p, m, from, to)
	r.sync(m, from, to)
	if got != nil {
		if now := got.Previous; now < admitted.low+declined.low || now > admitted.high+declined.high || got.Matched != when.Holds(now) ||
			got.Matched && got.Current != total || !got.Matched && got.Current != now {
			f.fault("%s: Set(%q, %v, %v, %d, %v): %+v, want %+v admitted and %+v declined", m.name, p.key,
				p.window, when, total, keep, *got, admitted, declined)
		}
		if !got.Matched {
			return
		}
	}
	for _, e := range r.events {
		if e.synced {
			e.admitted, e.declined = span{}, span{}
		}
	}
	r.doubt()
	e := &event{at: p, from: from, to: to, by: m, admitted: span{total, total}, synced: true, late: to}
	if keep != trypema.Replace && got.Previous > 0 {
		e.admitted, e.declined, e.cut = span{0, total}, span{0, total}, true
	}
	r.events = append(r.events, e)
}

// rate changes the rate of a window, for all keys.
func (f *Fleet) rate(t *rapid.T) {
	f.seldom(t)
	w := rapid.SampledFrom(f.windows()).Draw(t, "window")
	c := f.drawCapacity(t)
	f.note("", "the capacity of %v is %d now, after %d", w, c, f.capacity[w])
	f.rates = append(f.rates, change{time.Now(), w, f.capacity[w]})
	f.capacity[w] = c
}

// commit settles a reservation, perhaps one that has expired, or a second time.
func (f *Fleet) commit(t *rapid.T) {
	if len(f.promises) == 0 {
		t.Skip("there is none")
	}
	i := rapid.IntRange(0, len(f.promises)-1).Draw(t, "reservation")
	p := f.promises[i]
	f.expire()
	f.promises = slices.Delete(f.promises, i, i+1)
	is := rapid.SampledFrom([]uint64{0, p.estimate, p.estimate + 3, p.estimate / 2, 1}).Draw(t,
		"cost in the end")
	for _, e := range p.events {
		f.checkBound(e.at)
	}
	from := time.Now()
	err := p.Commit(context.Background(), is)
	to := time.Now()
	again := p.Refund(context.Background())
	f.expire()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(p.key, "%s: Commit(%q, %d) since %v, of %d at %v: %v", p.by.name, p.key, is, from.Sub(f.began),
		p.estimate, p.events[0].to.Sub(f.began), err)
	if !errors.Is(again, trypema.ErrSettled) {
		f.fault("a reservation of %q was settled twice: %v", p.key, again)
	}
	if took := to.Sub(from); took > 2*f.Options.Timeout {
		f.fault("Commit of %q took %v", p.key, took)
	}
	if err != nil {
		f.unavailable(p.by, "Commit", p.key, err, from, to)
	}
	f.settled(p, is, err == nil, f.excused(p.by, from, to), to)
	f.Figures.Settled++
}

// settled enters what a reservation costs now, if that is known, under the lock. In trouble it may be settled
// later, and the estimate counts until it expires.
func (f *Fleet) settled(p *promise, is uint64, known, trouble bool, to time.Time) {
	for _, e := range p.events {
		r, was, age := f.record(e.at), e.admitted, to.Sub(e.from)
		at := int64(e.to.Sub(f.began))
		if r.twin != nil && known {
			r.twin.Commit(f.now(), r.twin.Backdate(at, int64(e.life)), at, p.estimate, is)
		}
		e.charged = min(e.charged, is)
		if e.cut { // others' events may have been taken for those
			r.doubt()
		}
		switch {
		case !known:
			e.admitted, e.unsure = span{min(was.low, is), was.high + is}, true
			if e.life > 0 {
				e.charged = 0
			}
		case age >= e.at.window-2*time.Microsecond:
			e.admitted, e.life = span{0, was.high + is}, 0
			r.loose = true
		default:
			// The estimate leaves by itself. Beside groups of other buckets it may not be found.
			if f.Mixed || e.life > 0 && (trouble || age >= e.life-2*time.Microsecond) {
				rest := *e
				rest.admitted.low, rest.charged = 0, 0
				r.events = append(r.events, &rest)
			}
			e.admitted, e.life, e.synced = span{is, is}, 0, e.synced && !trouble
		}
	}
}
