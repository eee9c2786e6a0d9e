package httplimit

import (
	"net/netip"
	"strings"

	"github.com/trypema/trypema/internal/middleware"
)

// The header Forwarded of RFC 7239 is a list of elements, one by each proxy:
//
//	for=192.0.2.60;proto=http, for="[2001:db8:cafe::17]:4711";by=203.0.113.43
//
// A client can write anything before what the first proxy appends, quotes that do not end included. So lists
// are read from their end. The text after the last comma outside quotes is from the last proxy, whatever a
// client has written before it.

// lastElement returns where the last element of a list begins: behind the last comma that is in no quotes.
func lastElement(list string) int {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i] {
		case ',':
			if !quoted {
				return i + 1
			}
		case '"':
			// With an odd number of backslashes before it, it is in a quoted string and does not end it.
			first := i
			for first > 0 && list[first-1] == '\\' {
				first--
			}
			if (i-first)%2 == 0 {
				quoted = !quoted
			}
		}
	}
	return 0
}

// forwardedFor returns the value of the parameter "for" of an element, if it has one, and is well-formed.
func forwardedFor(element string) (node string, ok bool) {
	for rest := element; ; {
		rest = strings.TrimLeft(rest, " \t")
		switch {
		case rest == "":
			return node, ok
		case rest[0] == ';':
			rest = rest[1:]
			continue
		}
		name, after, found := strings.Cut(rest, "=")
		if !found || !isToken(name) {
			return "", false
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			value, rest, found = cutQuoted(after)
		} else {
			end := strings.IndexAny(after, "; \t")
			if end < 0 {
				end = len(after)
			}
			value, rest = after[:end], after[end:]
			found = value != "" && !strings.Contains(value, `"`)
		}
		rest = strings.TrimLeft(rest, " \t")
		if !found || rest != "" && rest[0] != ';' {
			return "", false
		}
		if strings.EqualFold(name, "for") {
			if ok { // two clients are none
				return "", false
			}
			node, ok = value, true
		}
	}
}

// isToken reports whether s is a token of RFC 9110.
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !isAlphanumeric(r) && (r > '~' || !strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	}) < 0
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// cutQuoted returns what is in a quoted string at the beginning of s, and what comes after it, if the string
// ends.
func cutQuoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// parseNode reads the address of a node, which may have a port. It has none if it is "unknown" or obfuscated;
// a port may be.
func parseNode(s string) (netip.Addr, bool) {
	if host, port, found := strings.Cut(s, ":_"); found && isObfuscated(port) {
		s = host
	}
	return middleware.ParseIP(s)
}

// isObfuscated reports whether s is what may come after the underscore of an obfuscated identifier.
func isObfuscated(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !isAlphanumeric(r) && r != '.' && r != '_' && r != '-'
	}) < 0
}
