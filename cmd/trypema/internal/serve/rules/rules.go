// Package rules reads the configuration of trypema serve and finds the rule that a descriptor of a request
// matches. It reads the files of the Envoy rate limit service (github.com/envoyproxy/ratelimit) as they are,
// and files of policies (package policyfile); which of the two a file is, its content says.
package rules

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema"
)

// Unit is the length of a window in the configuration of the Envoy rate limit service. The numbers are those
// of its protocol.
type Unit uint8

// The units. A month has 30 days and a year 365.
const (
	Unknown Unit = iota
	Second
	Minute
	Hour
	Day
	Month
	Year
	Week
)

const day = 24 * time.Hour

var units = [...]struct {
	name   string
	window time.Duration
}{
	{"unknown", 0},
	{"second", time.Second},
	{"minute", time.Minute},
	{"hour", time.Hour},
	{"day", day},
	{"month", 30 * day},
	{"year", 365 * day},
	{"week", 7 * day},
}

// Window returns the length of the unit, or 0 if it is none.
func (u Unit) Window() time.Duration {
	if int(u) >= len(units) {
		return 0
	}
	return units[u].window
}

// String returns the name of the unit as the configuration has it.
func (u Unit) String() string {
	if int(u) >= len(units) {
		return "Unit(" + strconv.Itoa(int(u)) + ")"
	}
	return units[u].name
}

func parseUnit(s string) Unit {
	for u := Second; int(u) < len(units); u++ {
		if strings.EqualFold(units[u].name, s) {
			return u
		}
	}
	return Unknown
}

// Rule is the rate limit of one descriptor of the configuration.
type Rule struct {
	// Path is the domain and the composite keys down to the descriptor, as in "shop.path_/login".
	Path string
	// Requests is the capacity of one window; 0 denies every request.
	Requests uint32
	Unit     Unit
	Name     string
	// Unlimited admits every request and counts none.
	Unlimited bool
	// Shadow has the status be OK although the limit is exceeded.
	Shadow bool
	// Quota has the answer be "over" only if all limits with Quota are exceeded, or one without it.
	Quota bool
	// Replaces are names of limits that do not count in a request that this rule matches.
	Replaces []string
	// Metadata goes to Envoy as dynamic metadata; nil for none.
	Metadata map[string]any
	// Detailed has the metrics of the rule include the values of the request.
	Detailed bool
	// Place is where the descriptor is: file:line.
	Place string
	// Index numbers the rules of a set from 0.
	Index int
}

// Entry is a key and a value of a descriptor of a request.
type Entry struct{ Key, Value string }

// Match is what a descriptor of a request matched.
type Match struct {
	Rule *Rule // nil if nothing matched, or what matched has no limit
	// Shared says for which entries all values that match a wildcard have one counter. Pattern returns the
	// value that they share.
	Shared   [MaxDepth]string
	IsShared bool
}

// MaxDepth bounds the entries of a descriptor, in the configuration and in requests.
const MaxDepth = 16

// node is a descriptor of the configuration with those below it.
type node struct {
	rule          *Rule
	children      map[string]*node // by composite key: key_value, or the key alone
	wildcards     wildcards
	pattern       string // the composite key, if it has a wildcard that shares its counter
	valueToMetric bool
	composite     string
}

// wildcards are the composite keys of one level that have a star, indexed by what stands before the first
// one. A lookup takes time in proportion to the different lengths of that, whatever the number of patterns.
type wildcards struct {
	lengths  []int
	byPrefix map[string][]wildcard
	count    int
}

type wildcard struct {
	order int
	parts []string // what stands between the stars
	node  *node
}

func (w *wildcards) add(composite string, n *node) {
	parts := strings.Split(composite, "*")
	if w.byPrefix == nil {
		w.byPrefix = make(map[string][]wildcard)
	}
	w.byPrefix[parts[0]] = append(w.byPrefix[parts[0]], wildcard{w.count, parts, n})
	w.count++
	if at, found := slices.BinarySearch(w.lengths, len(parts[0])); !found {
		w.lengths = slices.Insert(w.lengths, at, len(parts[0]))
	}
}

// find returns the first pattern, in the order of the file, that key and value match.
func (w *wildcards) find(composite string) *node {
	best := wildcard{order: w.count}
	for _, n := range w.lengths {
		if n > len(composite) {
			break
		}
		for _, c := range w.byPrefix[composite[:n]] {
			if c.order >= best.order {
				break
			}
			if c.matches(composite[n:]) {
				best = c
				break
			}
		}
	}
	return best.node
}

// matches reports whether what follows the prefix matches the rest of the pattern.
func (c *wildcard) matches(rest string) bool {
	last := c.parts[len(c.parts)-1]
	if !strings.HasSuffix(rest, last) {
		return false
	}
	rest = rest[:len(rest)-len(last)]
	for _, part := range c.parts[1 : len(c.parts)-1] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return true
}

// Set is a compiled configuration. It is not changed once it is made.
type Set struct {
	domains  map[string]*node
	rules    []*Rule
	Policies []trypema.Policy // of files of policies
	Files    []string
}

// Domains returns the names of the domains, sorted.
func (s *Set) Domains() []string { return slices.Sorted(maps.Keys(s.domains)) }

// Rules returns all rules that have a limit, sorted by path.
func (s *Set) Rules() []*Rule {
	all := slices.Clone(s.rules)
	slices.SortStableFunc(all, func(a, b *Rule) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// HasDomain reports whether there is a domain of that name.
func (s *Set) HasDomain(domain string) bool { return s.domains[domain] != nil }

// Find returns what a descriptor of a request in a domain matches. scratch is memory to build composite keys
// in, which is returned for the next call.
//
// At each level an exact key_value comes first, then the wildcards in the order of the file, then the key
// alone. A limit applies only to a descriptor that is as deep as the limit is in the configuration.
func (s *Set) Find(domain string, entries []Entry, m *Match, scratch []byte) []byte {
	m.Rule = nil
	if m.IsShared {
		*m = Match{}
	}
	at := s.domains[domain]
	for i, e := range entries {
		if at == nil || i == MaxDepth {
			return scratch
		}
		scratch = append(append(append(scratch[:0], e.Key...), '_'), e.Value...)
		next, isWild := at.children[string(scratch)], false
		if next == nil && at.wildcards.count > 0 {
			next = at.wildcards.find(string(scratch))
			isWild = next != nil
		}
		if next == nil {
			next = at.children[e.Key]
		}
		if isWild && next.pattern != "" {
			m.Shared[i] = strings.TrimPrefix(next.pattern, e.Key+"_")
			m.IsShared = true
		}
		at = next
	}
	if at != nil && at.rule != nil {
		m.Rule = at.rule
	}
	return scratch
}

// MetricKey returns the name under which the metrics of a request that matched are counted. It has values of
// the request where the configuration asks for them, and is Path otherwise.
func (s *Set) MetricKey(domain string, entries []Entry, m *Match) string {
	if m.Rule == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(domain)
	at := s.domains[domain]
	for i, e := range entries {
		if at == nil {
			break
		}
		composite, value := e.Key+"_"+e.Value, e.Value
		n := cmp.Or(at.children[composite], at.wildcards.find(composite))
		isDefault := n == nil
		if isDefault {
			n = at.children[e.Key]
		}
		switch {
		case n == nil:
			return m.Rule.Path
		case m.IsShared && m.Shared[i] != "":
			value = m.Shared[i]
		case m.Rule.Detailed || n.valueToMetric:
		case isDefault:
			value = ""
		default:
			value = strings.TrimPrefix(n.composite, e.Key+"_")
		}
		b.WriteString("." + e.Key)
		if value != "" {
			b.WriteString("_" + value)
		}
		at = n
	}
	return b.String()
}

// String describes the rules, a line for each, as trypema check and /rlconfig print them.
func (s *Set) String() string {
	var b strings.Builder
	for _, r := range s.Rules() {
		b.WriteString(r.Path + ": " + r.Limit())
		for _, f := range []struct {
			is   bool
			name string
		}{{r.Shadow, "shadow_mode"}, {r.Quota, "quota_mode"}, {r.Detailed, "detailed_metric"}} {
			if f.is {
				b.WriteString(", " + f.name)
			}
		}
		if r.Name != "" {
			b.WriteString(", name " + strconv.Quote(r.Name))
		}
		for _, name := range r.Replaces {
			b.WriteString(", replaces " + strconv.Quote(name))
		}
		b.WriteByte('\n')
	}
	for _, p := range s.Policies {
		b.WriteString("policy " + p.Name + ": ")
		for i, l := range p.Limits {
			if i > 0 {
				b.WriteString(" and ")
			}
			text, _ := l.MarshalText() // as files have it; there is never an error
			b.Write(text)
		}
		if p.Strategy != trypema.StrategyAbsolute {
			b.WriteString(", " + p.Strategy.String())
		}
		if p.Cost > 1 {
			b.WriteString(", cost " + strconv.FormatUint(p.Cost, 10))
		}
		if p.Group != "" && p.Group != p.Name {
			b.WriteString(", group " + strconv.Quote(p.Group))
		}
		if p.Shadow {
			b.WriteString(", shadow")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Limit describes the limit of a rule, as in "10 per minute".
func (r *Rule) Limit() string {
	if r.Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(uint64(r.Requests), 10) + " per " + r.Unit.String()
}
