package replay

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/window"
)

// engine lets the calls of logs pass through limits, in the time of the logs.
type engine struct {
	rules    []*rule
	suggests bool
	maxKeys  int
	dice     func() float64

	keys    map[string]*key
	groups  window.Groups
	longest int64 // of all windows

	first, last int64 // instants
	calls       uint64
	back        uint64 // lines whose time was before that of a line before them
	farthest    int64  // back
	forgotten   uint64 // keys that went because there were too many

	results []result // by rule
	series  series
	maxima  [len(suggested)][]uint64 // of keys that are forgotten
	worst   []Key                    // of these, under the first rule
}

// key is one of the keys of a log.
type key struct {
	last    int64
	judges  []judge
	busiest *busiest
}

// result is what a rule has done to all keys.
type result struct {
	denied                    uint64
	bucketDenied, fixedDenied uint64
	bucketMost, fixedMost     float64 // in a window, of the capacity
	most                      float64
	fullness                  [102]uint64 // by percent of the capacity; the last is for more
	limited                   uint64      // forgotten keys that were denied something
}

func newEngine(rules []*rule, suggests bool, maxKeys int, seed uint64) *engine {
	e := &engine{
		rules: rules, suggests: suggests, maxKeys: maxKeys, dice: dice(seed),
		keys: make(map[string]*key), results: make([]result, len(rules)), first: math.MaxInt64,
	}
	for _, r := range rules {
		for _, l := range r.limits {
			e.longest = max(e.longest, l.span.Window)
		}
	}
	if suggests {
		e.longest = max(e.longest, int64(suggested[len(suggested)-1]))
	}
	e.series.init(len(rules))
	return e
}

// see lets one call pass.
func (e *engine) see(l *line) {
	now := l.at
	if now < e.last {
		e.back++
		e.farthest = max(e.farthest, e.last-now)
		now = e.last // as for a limiter, whose clock does not run back
	}
	e.first, e.last = min(e.first, now), now
	e.calls++
	k := e.keys[string(l.key)]
	if k == nil {
		if len(e.keys) >= e.maxKeys {
			e.forget(now)
		}
		k = e.newKey()
		e.keys[string(l.key)] = k
	}
	k.last = now
	e.series.offer(now)
	chance := e.dice()
	for i, r := range e.rules {
		j, of := &k.judges[i], &e.results[i]
		allowed, full := j.decide(r, &e.groups, now, chance)
		of.most = max(of.most, full)
		of.fullness[min(int(math.Ceil(full*100)), len(of.fullness)-1)]++
		if allowed {
			e.series.admit(i, now)
		} else {
			of.denied++
		}
		if r.suppressed && i > 0 { // the others were seen under Absolute
			continue
		}
		bucket, fixed := j.peers(r, &e.groups, now)
		if !bucket.allowed {
			of.bucketDenied++
		}
		if !fixed.allowed {
			of.fixedDenied++
		}
		of.bucketMost, of.fixedMost = max(of.bucketMost, bucket.most), max(of.fixedMost, fixed.most)
	}
	if k.busiest != nil {
		k.busiest.see(&e.groups, now)
	}
}

func (e *engine) newKey() *key {
	k := &key{judges: make([]judge, len(e.rules))}
	for i, r := range e.rules {
		k.judges[i].limits = make([]judged, len(r.limits))
	}
	if e.suggests {
		k.busiest = new(busiest)
	}
	return k
}

// forget makes room for new keys: what is idle for longer than all windows goes, and if that is little, a
// tenth of the keys, those that are idle for longest. What was counted stays counted.
func (e *engine) forget(now int64) {
	before := now - e.longest
	idle := 0
	lasts := make([]int64, 0, len(e.keys))
	for _, k := range e.keys {
		lasts = append(lasts, k.last)
		if k.last < before {
			idle++
		}
	}
	if idle < len(e.keys)/10 {
		slices.Sort(lasts)
		before = lasts[len(lasts)/10] + 1
	}
	for name, k := range e.keys {
		if k.last >= before {
			continue
		}
		e.fold(name, k)
		for i := range k.judges {
			k.judges[i].clear(&e.groups)
		}
		if k.busiest != nil {
			k.busiest.clear(&e.groups)
		}
		delete(e.keys, name)
		e.forgotten++
	}
}

// fold adds a key to what is told of all.
func (e *engine) fold(name string, k *key) {
	for i := range k.judges {
		if k.judges[i].denied > 0 {
			e.results[i].limited++
		}
	}
	if k.busiest != nil {
		for i, n := range k.busiest.most {
			e.maxima[i] = append(e.maxima[i], n)
		}
	}
	if len(k.judges) > 0 && k.judges[0].denied > 0 {
		e.worst = append(e.worst, Key{Key: name, Calls: k.judges[0].calls, Denied: k.judges[0].denied})
		if len(e.worst) > 100*worstKeys {
			e.worst = mostDenied(e.worst)
		}
	}
}

// worstKeys is how many keys are told of.
const worstKeys = 10

// mostDenied returns the keys that were denied most.
func mostDenied(all []Key) []Key {
	slices.SortFunc(all, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Denied, a.Denied), cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Key, b.Key))
	})
	return all[:min(len(all), worstKeys)]
}

// report sums up what was seen.
func (e *engine) report(suggest float64) *Report {
	r := &Report{Calls: e.calls, Keys: uint64(len(e.keys)) + e.forgotten, KeysForgotten: e.forgotten, TimesBack: e.back}
	if e.calls > 0 {
		r.From, r.To = time.Unix(0, e.first).UTC(), time.Unix(0, e.last).UTC()
		r.FarthestBackSeconds = time.Duration(e.farthest).Seconds()
	}
	for i, of := range e.results {
		x := Rule{
			Limit: e.rules[i].text, Strategy: e.rules[i].strategy(),
			Denied: of.denied, DeniedShare: share(of.denied, e.calls),
			MostInAWindow: of.most, KeysLimited: of.limited,
			FullnessP50: quantile(of.fullness[:], .5), FullnessP99: quantile(of.fullness[:], .99),
		}
		if !e.rules[i].suppressed || i == 0 {
			x.TokenBucket = &Peer{of.bucketDenied, share(of.bucketDenied, e.calls), of.bucketMost}
			x.FixedWindow = &Peer{of.fixedDenied, share(of.fixedDenied, e.calls), of.fixedMost}
		}
		worst := []Key{}
		if i == 0 {
			worst = append(worst, e.worst...)
		}
		for name, k := range e.keys {
			if j := &k.judges[i]; j.denied > 0 {
				x.KeysLimited++
				worst = append(worst, Key{Key: name, Calls: j.calls, Denied: j.denied})
			}
		}
		x.Worst = mostDenied(worst)
		r.Rules = append(r.Rules, x)
	}
	r.series = e.series
	if e.suggests {
		r.busiest = e.busiest()
		r.Suggestions = e.suggest(suggest, r.busiest)
	}
	return r
}

// busiest returns the most calls of each key in a window of each length, in order.
func (e *engine) busiest() (all [len(suggested)][]uint64) {
	for i := range suggested {
		all[i] = slices.Clone(e.maxima[i])
		for _, k := range e.keys {
			all[i] = append(all[i], k.busiest.most[i])
		}
		slices.Sort(all[i])
	}
	return all
}

// suggest proposes for each window the least round limit that leaves so many percent of the keys alone.
func (e *engine) suggest(percent float64, busiest [len(suggested)][]uint64) (all []Suggestion) {
	for i, w := range suggested {
		most := busiest[i]
		if len(most) == 0 {
			continue
		}
		at := int(math.Ceil(percent/100*float64(len(most)))) - 1
		n := round(most[min(max(at, 0), len(most)-1)])
		over, _ := slices.BinarySearch(most, n+1)
		all = append(all, Suggestion{
			Limit: limitText(n, w), KeysOver: uint64(len(most) - over), Busiest: most[len(most)-1],
		})
		if time.Duration(e.last-e.first) < w {
			break // longer windows have seen no more
		}
	}
	return all
}

// quantile is the least percent that a share of the calls does not pass, of 1.
func quantile(counts []uint64, q float64) float64 {
	sum := uint64(0)
	for _, n := range counts {
		sum += n
	}
	below := uint64(0)
	for percent, n := range counts {
		if below += n; sum > 0 && float64(below) >= q*float64(sum) {
			return float64(percent) / 100
		}
	}
	return 0
}

func share(part, of uint64) float64 { return float64(part) / float64(max(of, 1)) }

// series is calls by time: at most maxSlots slots of equal length, which grow with the log.
type series struct {
	start, slot int64
	offered     []uint64
	admitted    [][]uint64 // by rule
}

const maxSlots = 240

func (s *series) init(rules int) {
	s.slot, s.admitted = int64(time.Second), make([][]uint64, rules)
}

func (s *series) at(now int64) int {
	if s.offered == nil {
		s.start = now - now%s.slot
	}
	for (now-s.start)/s.slot >= maxSlots {
		s.slot *= 2
		s.offered = halve(s.offered)
		for i := range s.admitted {
			s.admitted[i] = halve(s.admitted[i])
		}
	}
	return int((now - s.start) / s.slot)
}

// halve adds up pairs.
func halve(a []uint64) []uint64 {
	for i := range a {
		n := a[i]
		a[i] = 0
		a[i/2] += n
	}
	return a[:(len(a)+1)/2]
}

func (s *series) offer(now int64)           { s.offered = count(s.offered, s.at(now)) }
func (s *series) admit(rule int, now int64) { s.admitted[rule] = count(s.admitted[rule], s.at(now)) }

func count(a []uint64, i int) []uint64 {
	for len(a) <= i {
		a = append(a, 0)
	}
	a[i]++
	return a
}
