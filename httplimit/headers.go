package httplimit

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/middleware"
)

// Headers are what clients are told about their limit, in addition to Retry-After, which every denial has
// that waiting can cure. A limit that is never reached, such as trypema.NoLimit, is not told.
type Headers uint8

const (
	// StandardHeaders are RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11.
	// RateLimit-Policy has each limit with its capacity and its window, and is the same for allowed and
	// denied requests. RateLimit has the limit that denied the request, or the one with the least room: the
	// room that is left and, for a denial, the seconds until the same request fits.
	StandardHeaders Headers = iota
	// LegacyHeaders are X-RateLimit-Limit, X-RateLimit-Remaining and, for a denial, X-RateLimit-Reset, in
	// seconds from now. Of several limits in a chain they are those of the one that denied the request, or of
	// the one with the least room.
	LegacyHeaders
	// NoHeaders is Retry-After alone.
	NoHeaders
)

// The names as net/http writes them.
const (
	policyHeader    = "Ratelimit-Policy"
	limitHeader     = "Ratelimit"
	retryHeader     = "Retry-After"
	legacyLimit     = "X-Ratelimit-Limit"
	legacyRemaining = "X-Ratelimit-Remaining"
	legacyReset     = "X-Ratelimit-Reset"
)

// policyField is RateLimit-Policy for some limits, or for a single one with the name and window of the
// options and a capacity. It has no quotas if there is nothing to tell, as no limit is ever reached.
type policyField struct {
	limits []trypema.Limit
	single uint64 // the capacity, without limits
	quotas []quota
	value  []string // without room to append, so that responses can share it
}

// quota is a limit as clients know it.
type quota struct {
	name     string // unlike those of all others in the field
	label    string // as Decision.RefusedBy has it
	capacity uint64
	window   time.Duration
}

// fields are the last RateLimit-Policy by each policy, or by "", which most requests share.
type fields struct {
	byPolicy atomic.Pointer[map[string]*policyField]
}

func (f *fields) load(policy string) *policyField {
	if m := f.byPolicy.Load(); m != nil {
		return (*m)[policy]
	}
	return nil
}

func (f *fields) store(policy string, field *policyField) {
	last, next := f.byPolicy.Load(), make(map[string]*policyField)
	if last != nil {
		maps.Copy(next, *last)
	}
	next[policy] = field
	f.byPolicy.CompareAndSwap(last, &next) // or somebody else stores one now
}

// fieldFor returns RateLimit-Policy for the limits of a verdict, if they are known, or else for the capacity
// of its decision. Names that are taken, by policies of the same response, are changed.
func (m *limit) fieldFor(v *middleware.Verdict, taken []string) *policyField {
	capacity := v.Limit
	if len(v.Limits) > 0 {
		capacity = 0
	}
	p := m.fields.load(v.Policy)
	if p == nil || p.single != capacity || !slices.Equal(p.limits, v.Limits) {
		p = m.newField(v.Limits, capacity, nil)
		m.fields.store(v.Policy, p)
	}
	if slices.ContainsFunc(p.quotas, func(q quota) bool { return isTaken(q.name, taken) }) {
		p = m.newField(v.Limits, capacity, taken)
	}
	return p
}

func (m *limit) newField(limits []trypema.Limit, capacity uint64, taken []string) *policyField {
	p := &policyField{limits: slices.Clone(limits), single: capacity}
	if len(limits) == 0 && capacity < math.MaxInt64 {
		p.quotas = []quota{{name: m.Name, capacity: capacity, window: m.Window}}
	}
	for _, l := range limits {
		if l.IsNoLimit() || l.Rate == trypema.Unlimited {
			continue
		}
		q := quota{name: l.Label(), label: l.Label(), window: l.Window}
		if !quotable(q.name) {
			q.name = l.Window.String()
		}
		if l.Name == "" && len(limits) == 1 {
			q.name = m.Name
		}
		q.capacity, _ = l.Capacity() // what has no room has 0
		p.quotas = append(p.quotas, q)
	}
	if len(p.quotas) == 0 {
		return p
	}
	var value []byte
	for i := range p.quotas {
		q := &p.quotas[i]
		plain := q.name
		for n := 2; isTaken(q.name, taken); n++ {
			q.name = plain + "-" + strconv.Itoa(n)
		}
		if i > 0 {
			value = append(value, ", "...)
		}
		start := len(value)
		value = appendItem(value, q.name, "q", q.capacity)
		if q.window > 0 && q.window%time.Second == 0 { // it has no fractions there
			value = append(value, ";w="...)
			value = strconv.AppendInt(value, int64(q.window/time.Second), 10)
		}
		taken = append(slices.Clip(taken), string(value[start:]))
	}
	p.value = []string{string(value)}
	return p
}

// isTaken reports whether one of the values of a field has an item of that name.
func isTaken(name string, values []string) bool {
	if len(values) == 0 {
		return false
	}
	item := `"` + name + `";`
	return slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, item) })
}

// by returns the limit that a decision is about: the one that refused, or else the one with the least room.
// Decisions do not name that: it has the capacity that the decision says, and of several with the same
// capacity the one with the longest window has the least room.
func (p *policyField) by(d trypema.Decision) *quota {
	best := &p.quotas[0]
	for i := range p.quotas {
		q := &p.quotas[i]
		if d.RefusedBy != "" && q.label == d.RefusedBy {
			return q
		}
		fits, bestFits := q.capacity == d.Limit, best.capacity == d.Limit
		if fits && !bestFits || fits == bestFits && q.window > best.window {
			best = q
		}
	}
	return best
}

// appendItem appends the item of a policy with a parameter.
func appendItem(b []byte, name, parameter string, n uint64) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"', ';')
	b = append(b, parameter...)
	b = append(b, '=')
	return strconv.AppendUint(b, min(n, maxInteger), 10)
}

// tell sets the headers for a verdict. It returns the name of the limit that decided, for a denial. A policy
// in shadow is none of the client's business.
func (m *limit) tell(h http.Header, v *middleware.Verdict, f *limitField) (name string) {
	if v.Shadowed {
		return ""
	}
	seconds := int64(-1)
	if !v.Allowed && v.RetryAfter != trypema.Never {
		seconds = secondsUp(v.RetryAfter)
		h[retryHeader] = []string{strconv.FormatInt(seconds, 10)}
	}
	if v.Allowed && (m.Headers == NoHeaders || m.Headers == LegacyHeaders && v.Limit >= math.MaxInt64) {
		return ""
	}
	if m.Headers == LegacyHeaders {
		if left := h[legacyRemaining]; v.Allowed && len(left) > 0 {
			if n, err := strconv.ParseUint(left[0], 10, 64); err == nil && n <= v.Remaining {
				return "" // another limit of the chain has less room
			}
		}
		h[legacyLimit] = []string{strconv.FormatUint(v.Limit, 10)}
		h[legacyRemaining] = []string{strconv.FormatUint(v.Remaining, 10)}
		if seconds >= 0 {
			h[legacyReset] = []string{strconv.FormatInt(seconds, 10)}
		}
		if v.Allowed {
			return ""
		}
	}
	var taken []string
	if m.Headers == StandardHeaders {
		taken = h[policyHeader]
	}
	policy := m.fieldFor(v, taken)
	if len(policy.quotas) == 0 {
		return m.Name
	}
	name = policy.by(v.Decision).name
	if m.Headers != StandardHeaders {
		return name
	}
	if h[policyHeader] == nil {
		h[policyHeader] = policy.value
	} else { // after that of another limit
		h[policyHeader] = append(h[policyHeader], policy.value...)
	}
	b := appendItem(f.text[:0], name, "r", v.Remaining)
	if seconds >= 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, min(seconds, maxInteger), 10)
	}
	f.value[0] = unsafe.String(&b[0], len(b)) // which is not written again
	if h[limitHeader] == nil {
		h[limitHeader] = f.value[:]
	} else {
		h[limitHeader] = append(h[limitHeader], f.value[0])
	}
	return name
}

// limitField is room for the value of RateLimit. A longer one has memory of its own.
type limitField struct {
	value [1]string
	text  [64]byte
}

// secondsUp is d in whole seconds, not less: a client that waits so long does not come too early.
func secondsUp(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type     string   `json:"type"`
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Policies []string `json:"violated-policies,omitempty"`
}

func writeProblem(w http.ResponseWriter, status int, p problem) {
	p.Status = status
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p) // to a client that has gone, perhaps
}
