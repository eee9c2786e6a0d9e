package httplimit

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/trypema/trypema"
)

// Headers are what clients are told about their limit, besides Retry-After, which every denial has that waiting can cure.
type Headers uint8

const (
	// StandardHeaders are RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-10: the capacity of a window, the
	// room that is left in it, and, for a denial, the seconds until the same request fits.
	StandardHeaders Headers = iota
	// LegacyHeaders are X-RateLimit-Limit, X-RateLimit-Remaining and, for a denial, X-RateLimit-Reset, in seconds from now.
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

// policyField is RateLimit-Policy for a name and a capacity. Its value has no room to append, so that responses can share it.
type policyField struct {
	name  string
	limit uint64
	value []string
}

func (m *middleware) policyFor(name string, limit uint64) []string {
	if p := m.policy.Load(); p != nil && p.limit == limit && p.name == name {
		return p.value
	}
	var room [64]byte
	b := named(room[:0], name, "q", limit)
	if seconds := int64(m.Window / time.Second); seconds > 0 && name == m.Name {
		b = append(b, ";w="...)
		b = strconv.AppendInt(b, seconds, 10)
	}
	p := &policyField{name, limit, []string{string(b)}}
	m.policy.Store(p)
	return p.value
}

// named appends the name of a policy with a parameter.
func named(b []byte, name, parameter string, n uint64) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"', ';')
	b = append(b, parameter...)
	b = append(b, '=')
	return strconv.AppendUint(b, min(n, maxInteger), 10)
}

// tell sets the headers for a decision.
func (m *middleware) tell(h http.Header, d trypema.Decision) {
	seconds := int64(-1)
	if !d.Allowed && d.RetryAfter != trypema.Never {
		seconds = secondsUp(d.RetryAfter)
		h[retryHeader] = []string{strconv.FormatInt(seconds, 10)}
	}
	switch m.Headers {
	case StandardHeaders:
		name := m.nameOf(d)
		if policy := m.policyFor(name, d.Limit); h[policyHeader] == nil {
			h[policyHeader] = policy
		} else { // after that of another limit
			h[policyHeader] = append(h[policyHeader], policy...)
		}
		var room [64]byte
		b := named(room[:0], name, "r", d.Remaining)
		if seconds >= 0 {
			b = append(b, ";t="...)
			b = strconv.AppendInt(b, min(seconds, maxInteger), 10)
		}
		h[limitHeader] = append(h[limitHeader], string(b))
	case LegacyHeaders:
		h[legacyLimit] = []string{strconv.FormatUint(d.Limit, 10)}
		h[legacyRemaining] = []string{strconv.FormatUint(d.Remaining, 10)}
		if seconds >= 0 {
			h[legacyReset] = []string{strconv.FormatInt(seconds, 10)}
		}
	}
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
