package httplimit

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pauses are the instants before which servers want no more requests, by key. The zero value is ready for
// use.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time
	many  int // keys, at which to look for some whose time has passed
}

// pause has a key pause for a time, unless it does so for longer.
func (p *pauses) pause(key string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.until == nil {
		p.until, p.many = make(map[string]time.Time), 64
	}
	if len(p.until) >= p.many {
		for key, until := range p.until {
			if !until.After(now) {
				delete(p.until, key)
			}
		}
		p.many = max(64, 2*len(p.until))
	}
	if until := now.Add(d); until.After(p.until[key]) {
		p.until[key] = until
	}
}

// left returns how long a key pauses from now on.
func (p *pauses) left(key string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[key]
	if !ok {
		return 0
	}
	d := time.Until(until)
	if d <= 0 {
		delete(p.until, key)
	}
	return max(d, 0)
}

// wait returns 0 once a key does not pause, or at once for how long it does, if that is beyond end or the
// deadline of the context.
func (p *pauses) wait(ctx context.Context, key string, end time.Time) (time.Duration, error) {
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	for {
		left := p.left(key)
		if left == 0 || left > time.Until(end) {
			return left, nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

// pauseOf returns for how long a response asks the client to send nothing: the longest of Retry-After, if its
// status is 429 or 503, and of the times after which its exhausted limits have room again.
func pauseOf(r *http.Response) time.Duration {
	now := time.Now() // by the server's clock, if it says it
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		now = date
	}
	var pause time.Duration
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable {
		after := strings.TrimSpace(r.Header.Get(retryHeader))
		if seconds, ok := seconds(after); ok {
			pause = seconds
		} else if date, err := http.ParseTime(after); err == nil {
			pause = date.Sub(now)
		}
	}
	for _, value := range r.Header[limitHeader] {
		pause = max(pause, exhausted(value))
	}
	for _, prefix := range []string{"Ratelimit-", "X-Ratelimit-"} {
		if strings.TrimSpace(r.Header.Get(prefix+"Remaining")) != "0" {
			continue
		}
		reset := strings.TrimSpace(r.Header.Get(prefix + "Reset"))
		if d, ok := seconds(reset); ok && d < epoch {
			pause = max(pause, d)
		} else if ok { // an instant
			pause = max(pause, time.Unix(int64(d/time.Second), 0).Sub(now))
		}
	}
	return pause
}

const (
	// A number of seconds from epoch on is an instant, counted since 1970, and not a time to wait.
	epoch = 5e8 * time.Second
	// endless is the longest time that seconds returns.
	endless = 9e9 * time.Second
)

// seconds reads a number of seconds.
func seconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > uint64(endless/time.Second) {
		return endless, true
	}
	return time.Duration(n) * time.Second, true
}

// exhausted returns the longest time in a RateLimit field after which a limit has room of which nothing is
// left: the parameter t of an item whose r is 0.
func exhausted(field string) (longest time.Duration) {
	quoted, nothing, after := false, false, time.Duration(0)
	start := 0
	for i := 0; i <= len(field); i++ {
		switch {
		case i < len(field) && quoted && field[i] == '\\':
			i++
			continue
		case i < len(field) && field[i] == '"':
			quoted = !quoted
			continue
		case i < len(field) && (quoted || field[i] != ';' && field[i] != ','):
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(field[start:min(i, len(field))]), "=")
		d, ok := seconds(value)
		switch {
		case name == "r" && ok:
			nothing = d == 0
		case name == "t" && ok:
			after = d
		}
		if i >= len(field) || field[i] == ',' { // the end of an item
			if nothing {
				longest = max(longest, after)
			}
			nothing, after = false, 0
		}
		start = i + 1
	}
	return longest
}
