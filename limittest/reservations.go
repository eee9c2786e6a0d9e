package limittest

import (
	"errors"
	"fmt"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/must"
)

// life is what becomes of a reservation of 100, and what it counts: after it has been made, after what
// happens early, before what happens late, when it has expired if it has an expiry of a quarter of the
// window, and after that.
type life struct {
	name        string
	expiry      string // none, short (of the window), or long (between the two windows)
	early, late func(r *trypema.Reservation, remove func() error) error
	counts      [3]uint64
}

func commits(n uint64) func(*trypema.Reservation, func() error) error {
	return func(r *trypema.Reservation, _ func() error) error { return r.Commit(ctx, n) }
}

func deletes(_ *trypema.Reservation, remove func() error) error { return remove() }

func twice(n uint64) func(*trypema.Reservation, func() error) error {
	return func(r *trypema.Reservation, _ func() error) error {
		if err := r.Commit(ctx, n); err != nil {
			return err
		}
		if err := r.Commit(ctx, n+1); !errors.Is(err, trypema.ErrSettled) {
			return fmt.Errorf("a second commit: %w, want ErrSettled", err)
		}
		if err := r.Refund(ctx); !errors.Is(err, trypema.ErrSettled) {
			return fmt.Errorf("a refund after a commit: %w, want ErrSettled", err)
		}
		return nil
	}
}

// lives are all that can become of a reservation in one instance.
var lives = []life{
	{name: "forgotten", expiry: "none", counts: [3]uint64{100, 100, 100}},
	{name: "forgotten, with an expiry", expiry: "short", counts: [3]uint64{100, 0, 0}},
	{name: "forgotten, with a long expiry", expiry: "long", counts: [3]uint64{100, 100, 100}},

	{name: "committed below", expiry: "none", early: twice(30), counts: [3]uint64{30, 30, 30}},
	{name: "committed below, with an expiry", expiry: "short", early: twice(30), counts: [3]uint64{30, 30, 30}},
	{name: "committed as estimated", expiry: "none", early: twice(100), counts: [3]uint64{100, 100, 100}},
	{name: "committed as estimated, with an expiry", expiry: "short", early: twice(100),
		counts: [3]uint64{100, 100, 100}},
	{name: "committed above", expiry: "none", early: twice(150), counts: [3]uint64{150, 150, 150}},
	{name: "committed above, with an expiry", expiry: "short", early: twice(150), counts: [3]uint64{150, 150, 150}},
	{name: "committed below, with a long expiry", expiry: "long", early: twice(30), counts: [3]uint64{30, 30, 30}},
	{name: "refunded", expiry: "none", early: twice(0), counts: [3]uint64{0, 0, 0}},
	{name: "refunded, with an expiry", expiry: "short", early: twice(0), counts: [3]uint64{0, 0, 0}},

	{name: "committed late", expiry: "none", late: twice(30), counts: [3]uint64{100, 100, 30}},
	{name: "expired, then committed below", expiry: "short", late: twice(30), counts: [3]uint64{100, 0, 30}},
	{name: "expired, then committed as estimated", expiry: "short", late: twice(100), counts: [3]uint64{100, 0, 100}},
	{name: "expired, then committed above", expiry: "short", late: twice(150), counts: [3]uint64{100, 0, 150}},
	{name: "expired, then refunded", expiry: "short", late: twice(0), counts: [3]uint64{100, 0, 0}},

	{name: "deleted, then forgotten", expiry: "none", early: deletes},
	{name: "deleted, then expired", expiry: "short", early: deletes},
	{name: "deleted, then refunded", expiry: "none", early: deletes, late: commits(0)},
	{name: "deleted, then committed", expiry: "none", early: deletes, late: commits(30),
		counts: [3]uint64{0, 0, 30}},
	{name: "deleted, expired, then committed", expiry: "short", early: deletes, late: commits(30),
		counts: [3]uint64{0, 0, 30}},
	{name: "committed, then deleted", expiry: "short", early: commits(30), late: deletes,
		counts: [3]uint64{30, 30, 0}},
}

// cycle is one of them, in the company of others.
type cycle struct {
	life
	m              *multiSubject
	limits         *trypema.Bound
	key            string
	before, behind uint64 // what others use before it, and after what happens early
	others         uint64 // of that, what is there
	*trypema.Reservation
}

// cycles are all lives, each alone and beside others.
func (m *multiSubject) cycles(limits *trypema.Bound) (all []*cycle) {
	for i, of := range lives {
		company := []*cycle{{}, {before: 7}, {behind: 5}, {before: 7, behind: 5}}
		if m.s.Jitter > 0 { // time is real
			company = company[i%len(company):][:1]
		}
		for _, c := range company {
			c.life, c.m, c.limits = of, m, limits
			c.key = fmt.Sprintf("%s, %d, %d", c.name, c.before, c.behind)
			all = append(all, c)
		}
	}
	return all
}

// reserve makes the reservation, after what others use before it.
func (c *cycle) reserve() {
	c.use(c.before)
	defer c.m.took(time.Now())
	w := c.m.s.Window
	expiry := map[string]time.Duration{"none": 0, "short": w / 4, "long": 2 * w}[c.expiry]
	r, err := c.limits.Reserve(ctx, c.key, 100, expiry)
	if err != nil || !r.Allowed {
		c.m.Fatalf("%s: %+v, %v", c.key, r, err)
	}
	c.Reservation = r
}

// use has others make a call of cost n.
func (c *cycle) use(n uint64) {
	defer c.m.took(time.Now())
	if n == 0 {
		return
	}
	if d, err := c.limits.AllowN(ctx, c.key, n); err != nil || !d.Allowed {
		c.m.Fatalf("%s: %+v, %v", c.key, d, err)
	}
	c.others += n
}

// happens has something become of the reservation, unless it is nil.
func (c *cycle) happens(what func(*trypema.Reservation, func() error) error) {
	defer c.m.took(time.Now())
	if what == nil {
		return
	}
	err := what(c.Reservation, func() error {
		c.others = 0
		return c.limits.Delete(ctx, c.key)
	})
	if err != nil {
		c.m.Fatalf("%s: %v", c.key, err)
	}
}

// holds checks what the two windows hold.
func (c *cycle) holds(when string, long, short uint64) {
	defer c.m.took(time.Now())
	u, err := c.limits.Usage(ctx, c.key)
	if err != nil || u[0].Total != long || u[1].Total != short {
		c.m.Errorf("%s: %s the windows hold %+v, %v, want %d and %d", c.key, when, u, err, long, short)
	}
}

// livesOfReservations has each reservation live on a key of its own, alone and beside others. Its true cost
// counts from when it was admitted on, whatever became of the estimate; and until the expiry, the estimate
// counts.
func (m *multiSubject) livesOfReservations() {
	w := m.s.Window
	all := m.cycles(m.limits(1000, 2000, 4))
	for _, c := range all {
		c.reserve()
		c.holds("reserved,", 100+c.others, 100+c.others)
	}
	began := time.Now()
	until := func(d time.Duration) { m.sleep(time.Until(began.Add(d))) }
	late := w/10 + m.s.Lag // no reservation expires later than a bucket after its expiry
	until(w / 8)
	for _, c := range all {
		c.happens(c.early)
		c.use(c.behind)
		c.holds("early", c.counts[0]+c.others, c.counts[0]+c.others)
	}
	until(w/4 + late)
	for _, c := range all {
		c.holds("once it has expired,", c.counts[1]+c.others, c.counts[1]+c.others)
		c.happens(c.late)
		c.holds("late", c.counts[2]+c.others, c.counts[2]+c.others)
	}
	until(w + w/16) // whenever it was settled, it leaves when it was admitted a window ago
	for _, c := range all {
		c.holds("a window later", c.counts[2]+c.others, min(c.others, c.behind))
	}
	if m.s.Jitter > 0 {
		return
	}
	until(2*w + late)
	for _, c := range all {
		long := c.counts[2]
		if c.name == "forgotten, with a long expiry" {
			long = 0
		}
		c.holds("two windows later", long+c.others, 0)
	}
}

// otherLimits has limits change while something is reserved: it is settled by those that admitted it, in the
// windows that these have.
func (m *multiSubject) otherLimits() {
	w := m.s.Window
	old := m.limits(1000, 2000, 4)
	lower, higher := m.limits(60, 120, 4), m.limits(3000, 6000, 4)
	apart := m.bind(trypema.Limit{Rate: m.s.rate(1000), Window: w},
		trypema.Limit{Rate: m.s.rate(1000), Window: 8 * w})
	r := m.reserve(old, 100, w/4)
	for name, l := range map[string]*trypema.Bound{"lower": lower, "higher": higher} {
		if u := m.used(l); u != [2]uint64{100, 100} {
			m.Errorf("reserved, %s limits: %d used", name, u)
		}
	}
	if d := m.allow(lower, 1); d.Allowed {
		m.Errorf("lower limits, which it takes up: %+v", d)
	}
	if u := m.used(apart); u != [2]uint64{100, 0} {
		m.Errorf("reserved, another window beside: %d used", u)
	}
	must.OK(m, r.Commit(ctx, 30))
	if d := m.allow(lower, 10); !d.Allowed && !m.s.Suppressed {
		m.Errorf("lower limits, once it is settled at half of them: %+v", d)
	}
	m.sleep(w/4 + w/10 + m.s.Lag)
	used := m.used(old)
	if !m.s.Suppressed && used != [2]uint64{40, 40} {
		m.Errorf("settled, and past the expiry: %d used, want 30 and 10", used)
	}
	if u := m.used(apart); u != [2]uint64{used[1], 0} {
		m.Errorf("settled, another window beside: %d used", u)
	}
	// What expires comes back, whatever the limits are by then.
	m.reserve(higher, 500, w/4)
	if d, err := old.Peek(ctx, "k", 900); err != nil || d.Allowed && !m.s.Suppressed {
		m.Errorf("the old limits, of which half is reserved by higher ones: %+v, %v", d, err)
	}
	m.sleep(w/4 + w/10 + m.s.Lag)
	if u := m.used(old); u != used {
		m.Errorf("expired: %d used, want %d", u, used)
	}
}

// outlives closes an instance that has something reserved, and looks at it through another one that shares
// its counts.
func (m *multiSubject) outlives() {
	closer, ok := m.p.(interface{ Close() error })
	if m.s.Join == nil || !ok {
		m.Skip("providers do not share what they count")
	}
	w := m.s.Window
	l := m.limits(1000, 2000, 4)
	other := &multiSubject{m.trial, m.s.Join(m.T, m.p)}
	seen := other.limits(1000, 2000, 4)
	m.allow(l, 7)
	open, expiring := m.reserve(l, 20, 0), m.reserve(l, 100, w/4)
	must.OK(m, m.reserve(l, 50, w/4).Commit(ctx, 3))
	began := time.Now()
	must.OK(m, closer.Close())
	for _, r := range []*trypema.Reservation{open, expiring} {
		if err := r.Commit(ctx, 1); !errors.Is(err, trypema.ErrClosed) {
			m.Errorf("commit after Close: %v, want ErrClosed", err)
		}
	}
	other.check("closed", seen, 7+20+100+3)
	m.sleep(time.Until(began.Add(w/4 + w/10 + m.s.Lag)))
	other.check("closed, and expired since", seen, 7+20+3)
	m.sleep(time.Until(began.Add(w + w/10 + m.s.Lag)))
	if u := other.used(seen); u != [2]uint64{7 + 20 + 3, 0} {
		m.Errorf("closed a window ago: %d used", u)
	}
}
