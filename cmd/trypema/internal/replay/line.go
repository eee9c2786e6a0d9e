package replay

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// What is wrong with a line.
var (
	errNoTime = errors.New("there is no time in it")
	errNoKey  = errors.New("there is no key in it")
)

// line is a call in a log. Its key is a part of the line that was read, or of the buffer of its parser.
type line struct {
	at  int64 // ns since 1970
	key []byte
}

// parser reads lines of one format.
type parser struct {
	format string
	fields []string // of a line, that make the key
	parse  func(p *parser, text []byte, l *line) error

	joined []byte
	minute minute
}

// The keys that are known in each format. Others are fields of JSON.
const (
	keyIP   = "ip"
	keyUser = "user"
	keyPath = "path"
)

// newParser returns the parser of the format that a first line has.
func newParser(text []byte, key string) *parser {
	p := &parser{fields: strings.Split(key, "+")}
	switch {
	case text[0] == '{':
		p.format, p.parse = "JSON lines", (*parser).json
	case text[0] == '[':
		p.format, p.parse = "Envoy", (*parser).envoy
	case isALB(text):
		p.format, p.parse = "ALB", (*parser).alb
	default:
		p.format, p.parse = "common or combined", (*parser).common
	}
	return p
}

// isALB reports whether a line is one of a load balancer of AWS: a type, a time by RFC 3339, and so on.
func isALB(text []byte) bool {
	_, rest, _ := bytes.Cut(text, space)
	at, _, _ := bytes.Cut(rest, space)
	_, ok := rfc3339(at)
	return ok
}

var space = []byte{' '}

// key makes the key of a line, by what returns its fields.
func (p *parser) key(l *line, field func(name string) []byte) error {
	if len(p.fields) == 1 {
		l.key = field(p.fields[0])
		if len(l.key) == 0 || len(l.key) == 1 && l.key[0] == '-' {
			return errNoKey
		}
		return nil
	}
	p.joined = p.joined[:0]
	for i, name := range p.fields {
		of := field(name)
		if len(of) == 0 || len(of) == 1 && of[0] == '-' {
			return errNoKey
		}
		if i > 0 {
			p.joined = append(p.joined, ' ')
		}
		p.joined = append(p.joined, of...)
	}
	l.key = p.joined
	return nil
}

// common reads the formats of Apache and nginx:
//
//	203.0.113.9 - ann [10/Oct/2000:13:55:36 -0700] "GET /a?b HTTP/1.0" 200 2326 …
func (p *parser) common(text []byte, l *line) error {
	host, rest, _ := bytes.Cut(text, space)
	open := bytes.IndexByte(rest, '[')
	if open < 0 {
		return errNoTime
	}
	names, rest := rest[:open], rest[open+1:]
	shut := bytes.IndexByte(rest, ']')
	if shut < 0 {
		return errNoTime
	}
	at, ok := p.minute.common(rest[:shut])
	if !ok {
		return errNoTime
	}
	l.at = at
	rest = rest[shut+1:]
	return p.key(l, func(name string) []byte {
		switch name {
		case keyIP:
			return host
		case keyUser:
			_, user, _ := bytes.Cut(names, space)
			return bytes.TrimSpace(user)
		case keyPath:
			return pathOf(quoted(rest))
		}
		return nil
	})
}

// envoy reads the default format of Envoy:
//
//	[2016-04-15T20:17:00.310Z] "POST /a HTTP/2" 204 - 154 0 226 100 "203.0.113.9" "agent" …
func (p *parser) envoy(text []byte, l *line) error {
	shut := bytes.IndexByte(text, ']')
	if shut < 0 {
		return errNoTime
	}
	at, ok := rfc3339(text[1:shut])
	if !ok {
		return errNoTime
	}
	l.at = at
	rest := text[shut+1:]
	return p.key(l, func(name string) []byte {
		request := quoted(rest)
		switch name {
		case keyIP:
			_, after, _ := bytes.Cut(rest, request)
			_, after, _ = bytes.Cut(after, []byte{'"'})
			return lastAddress(quoted(after))
		case keyPath:
			return pathOf(request)
		}
		return nil
	})
}

// alb reads the format of an Application Load Balancer:
//
//	https 2018-07-02T22:23:00.186641Z app/lb/50dc 203.0.113.9:2817 10.0.0.1:80 … "GET https://a/b HTTP/1.1" …
func (p *parser) alb(text []byte, l *line) error {
	_, rest, _ := bytes.Cut(text, space)
	stamp, rest, _ := bytes.Cut(rest, space)
	at, ok := rfc3339(stamp)
	if !ok {
		return errNoTime
	}
	l.at = at
	return p.key(l, func(name string) []byte {
		switch name {
		case keyIP:
			_, after, _ := bytes.Cut(rest, space)
			client, _, _ := bytes.Cut(after, space)
			return withoutPort(client)
		case keyPath:
			return pathOf(quoted(rest))
		}
		return nil
	})
}

// Fields of JSON, in the order in which they are looked for.
var (
	timeFields = []string{"ts", "time", "timestamp", `@timestamp`, "start_time", "time_iso8601", "time_local",
		"msec", "date"}
	ipFields = []string{
		"remote_addr", "client_ip", "remote_ip", "request.client_ip", "request.remote_ip", "downstream_remote_address",
		"clientip", "ip", "remote_host", "host", "client",
	}
	userFields = []string{"user", "remote_user", "user_id", "request.headers.X-User"}
	pathFields = []string{"path", "uri", "request.uri", "request_uri", "url", "request"}
)

// json reads an object: of nginx, Caddy, Envoy, or any other whose fields --key names.
func (p *parser) json(text []byte, l *line) error {
	if !gjson.ValidBytes(text) {
		return errors.New("it is not JSON")
	}
	ok := false
	for _, name := range timeFields {
		if v := gjson.GetBytes(text, name); v.Exists() {
			if l.at, ok = p.jsonTime(v); ok {
				break
			}
		}
	}
	if !ok {
		return errNoTime
	}
	first := func(names []string) []byte {
		for _, name := range names {
			if v := gjson.GetBytes(text, name); v.Type == gjson.String && v.Str != "" {
				return []byte(v.Str)
			}
		}
		return nil
	}
	return p.key(l, func(name string) []byte {
		switch v := gjson.GetBytes(text, name); {
		case v.Exists() && !v.IsObject() && !v.IsArray():
			return []byte(v.String())
		case name == keyIP:
			return withoutPort(first(ipFields))
		case name == keyUser:
			return first(userFields)
		case name == keyPath:
			path := first(pathFields)
			if bytes.Contains(path, space) {
				return pathOf(path)
			}
			path, _, _ = bytes.Cut(path, []byte{'?'})
			return path
		}
		return nil
	})
}

// jsonTime reads a time: a text, or a number of seconds, or of milliseconds if seconds would be after 5138.
func (p *parser) jsonTime(v gjson.Result) (int64, bool) {
	if v.Type == gjson.Number {
		n := v.Num
		if n > 1e11 {
			n /= 1000
		}
		return int64(n * 1e9), n > 0 && n < end
	}
	text := []byte(v.String())
	if at, ok := rfc3339(text); ok {
		return at, true
	}
	return p.minute.common(text)
}

// quoted returns what is in the first quotes.
func quoted(text []byte) []byte {
	_, rest, _ := bytes.Cut(text, []byte{'"'})
	inside, _, _ := bytes.Cut(rest, []byte{'"'})
	return inside
}

// pathOf returns the path of a request line, without its query, and without the scheme and host.
func pathOf(request []byte) []byte {
	_, rest, ok := bytes.Cut(request, space)
	if !ok {
		return nil
	}
	target, _, _ := bytes.Cut(rest, space)
	target, _, _ = bytes.Cut(target, []byte{'?'})
	if _, after, ok := bytes.Cut(target, []byte("://")); ok {
		if slash := bytes.IndexByte(after, '/'); slash >= 0 {
			return after[slash:]
		}
		return []byte{'/'}
	}
	return target
}

// lastAddress returns the last of a list of addresses: the one that the nearest proxy wrote.
func lastAddress(list []byte) []byte {
	return bytes.TrimSpace(list[bytes.LastIndexByte(list, ',')+1:])
}

// withoutPort returns an address without its port.
func withoutPort(text []byte) []byte {
	if bytes.Count(text, []byte{':'}) == 0 {
		return text
	}
	if of, err := netip.ParseAddrPort(string(text)); err == nil {
		return []byte(of.Addr().Unmap().String())
	}
	return text
}

// minute is a minute that was read, so that the next line of the same minute reads its second only.
type minute struct {
	text  string // "10/Oct/2000:13:55" and the zone
	start int64  // ns since 1970
}

const commonLayout = "02/Jan/2006:15:04 -0700"

// common reads the time of common logs: 10/Oct/2000:13:55:36 -0700.
func (m *minute) common(text []byte) (int64, bool) {
	const upToMinute, upToSecond = len("10/Oct/2000:13:55"), len("10/Oct/2000:13:55:36")
	if len(text) != upToSecond+len(" -0700") || text[upToMinute] != ':' {
		return 0, false
	}
	tens, ones := text[upToMinute+1]-'0', text[upToMinute+2]-'0'
	if tens > 6 || ones > 9 {
		return 0, false
	}
	known := len(m.text) == upToMinute+len(" -0700") &&
		m.text[:upToMinute] == string(text[:upToMinute]) && m.text[upToMinute:] == string(text[upToSecond:])
	if !known {
		whole := string(text[:upToMinute]) + string(text[upToSecond:])
		at, err := time.Parse(commonLayout, whole)
		if err != nil {
			return 0, false
		}
		start, ok := nanoseconds(at)
		if !ok {
			return 0, false
		}
		m.text, m.start = whole, start
	}
	return m.start + int64(tens*10+ones)*int64(time.Second), true
}

// rfc3339 reads a time as in 2018-07-02T22:23:00.186641Z.
func rfc3339(text []byte) (int64, bool) {
	if len(text) < len("2006-01-02T15:04:05Z") || text[4] != '-' {
		return 0, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return 0, false
	}
	return nanoseconds(at)
}

// end is the first second that no log may have, in 2255. An int64 holds some more of ns.
const end = 9_000_000_000

// nanoseconds returns a time in ns since 1970, if it is neither before nor after all times that a log may
// have.
func nanoseconds(t time.Time) (int64, bool) {
	s := t.Unix()
	return t.UnixNano(), s >= 0 && s < end
}
