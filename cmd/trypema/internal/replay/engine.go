package replay

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/trypema/trypema"
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
	limits  int   // of all rules

	first, last int64 // instants
	calls       uint64
	back        uint64 // lines whose time was before that of a line before them
	farthest    int64  // back
	forgotten   uint64 // keys that went because there were too many

	results []result // by rule
	series  series
	maxima  [len(suggested)]map[uint64]int // of keys that are forgotten: how many had which
	worst   []Key                          // of these, under the first rule
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
		e.limits += len(r.limits)
		for _, l := range r.limits {
			e.longest = max(e.longest, l.span.Window)
		}
	}
	if suggests {
		e.longest = max(e.longest, int64(suggested[len(suggested)-1]))
	}
	for i := range e.maxima {
		e.maxima[i] = make(map[uint64]int)
	}
	e.series.admitted = make([][]uint64, len(rules))
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
		if i > 0 && r.strategy == trypema.StrategySuppressed { // the others were seen under Absolute
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
	all := make([]judged, e.limits) // of all rules beside each other, as they are used
	for i, r := range e.rules {
		n := len(r.limits)
		k.judges[i].limits, all = all[:n:n], all[n:]
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
			e.maxima[i][n]++
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
			Limit: e.rules[i].text, Strategy: e.rules[i].strategy.String(),
			Denied: of.denied, DeniedShare: share(of.denied, e.calls),
			MostInAWindow: of.most, KeysLimited: of.limited,
			FullnessP50: quantile(of.fullness[:], .5), FullnessP99: quantile(of.fullness[:], .99),
		}
		if i == 0 || e.rules[i].strategy == trypema.StrategyAbsolute {
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
		r.suggest, r.busiest = suggest, e.busiest()
		r.Suggestions = e.suggestions(suggest, r.busiest)
	}
	return r
}

// busiest returns the most calls of each key in a window of each length.
func (e *engine) busiest() (all [len(suggested)]spread) {
	for i := range suggested {
		counts := maps.Clone(e.maxima[i])
		for _, k := range e.keys {
			counts[k.busiest.most[i]]++
		}
		for _, value := range slices.Sorted(maps.Keys(counts)) {
			all[i].values = append(all[i].values, value)
			all[i].upTo = append(all[i].upTo, all[i].len()+counts[value])
		}
	}
	return all
}

// spread is some numbers in order: each of the values, and how many numbers are up to it.
type spread struct {
	values []uint64
	upTo   []int
}

func (s spread) len() int {
	if len(s.upTo) == 0 {
		return 0
	}
	return s.upTo[len(s.upTo)-1]
}

// at returns the number that i others are before.
func (s spread) at(i int) uint64 {
	at, _ := slices.BinarySearch(s.upTo, i+1)
	return s.values[at]
}

func (s spread) most() uint64 { return s.at(s.len() - 1) }

// over returns how many numbers are above n.
func (s spread) over(n uint64) int {
	if at, _ := slices.BinarySearch(s.values, n+1); at > 0 {
		return s.len() - s.upTo[at-1]
	}
	return s.len()
}

// suggestions proposes for each window that the log fills the least round limit that leaves so many percent
// of the keys alone.
func (e *engine) suggestions(percent float64, busiest [len(suggested)]spread) (all []Suggestion) {
	for i, w := range suggested {
		most := busiest[i]
		if most.len() == 0 || i > 0 && time.Duration(e.last-e.first) < w {
			break
		}
		at := int(math.Ceil(percent/100*float64(most.len()))) - 1
		n := round(most.at(min(max(at, 0), most.len()-1)))
		all = append(all, Suggestion{
			Limit: limitText(n, w), KeysOver: uint64(most.over(n)), Busiest: most.most(),
		})
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
	length   int   // of a slot, as an index of slots
	start    int64 // of the first slot
	offered  []uint64
	admitted [][]uint64 // by rule
}

const maxSlots = 120

// slots are the lengths that slots may have. Each is a multiple of the one before.
var slots = [...]time.Duration{
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute,
	30 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 240 * time.Hour, 2400 * time.Hour, 24000 * time.Hour,
}

func (s *series) slot() time.Duration { return slots[s.length] }

func (s *series) at(now int64) int {
	if s.offered == nil {
		s.start = now - now%int64(s.slot())
	}
	for (now-s.start)/int64(s.slot()) >= maxSlots {
		from, start := int64(s.slot()), s.start
		s.length++
		s.start -= s.start % int64(s.slot())
		merge := func(a []uint64) []uint64 {
			n := 0
			for i, count := range a {
				a[i] = 0
				n = int((start + int64(i)*from - s.start) / int64(s.slot()))
				a[n] += count
			}
			return a[:min(n+1, len(a))]
		}
		s.offered = merge(s.offered)
		for i := range s.admitted {
			s.admitted[i] = merge(s.admitted[i])
		}
	}
	return int((now - s.start) / int64(s.slot()))
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

// values are some counts of the series as numbers, one for each slot.
func (s *series) values(counts []uint64) []float64 {
	all := make([]float64, len(s.offered))
	for i, n := range counts {
		all[i] = float64(n)
	}
	return all
}
