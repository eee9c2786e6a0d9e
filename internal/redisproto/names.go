package redisproto

import (
	"strconv"
	"strings"
	"time"

	"github.com/trypema/trypema/internal/groupkey"
)

// Names gives the keys of a limiter their names in Redis:
//
//	{prefix:key}:strategy:window
//	{prefix:key}:strategy:window:group
//
// The strategy is one or two letters, and the number of colons in the prefix if it has any, which says where
// the key begins. A window has no colon and is no strategy, and a group has no colon. So a name can be read
// from its end, whatever the bytes of the key, and no two (prefix, group, key, strategy, window) have the
// same name.
//
// The version before this one wrote neither that number nor the group at the end, but a group and a colon
// before the key. Its names of plain keys under a prefix without a colon are those of today. No other name of
// today is one of its names, so nothing is counted under another's.
//
// In a Cluster all names of a key are in one slot: the part that is hashed ends at the first closing brace.
type Names struct{ before, letter, after string }

// NewNames returns the names of the keys of one strategy, which the letter stands for, with windows of one
// length.
func NewNames(prefix, letter string, window time.Duration) Names {
	kind := letter
	if n := strings.Count(prefix, ":"); n > 0 {
		kind += strconv.Itoa(n)
	}
	return Names{"{" + prefix + ":", letter, "}:" + kind + ":" + window.String()}
}

// Of returns the name of the Redis key of a key, of which it takes the form.
func (n Names) Of(form string) string {
	group, key := groupkey.Split(form)
	if group == "" {
		return n.before + key + n.after
	}
	return n.before + key + n.after + ":" + group
}

// Form returns the form of the key that a name was made of.
func (n Names) Form(name string) string {
	if key, plain := strings.CutSuffix(name[len(n.before):], n.after); plain {
		return groupkey.Plain(key)
	}
	colon := strings.LastIndexByte(name, ':')
	return groupkey.Prefix(name[colon+1:]) + name[len(n.before):colon-len(n.after)]
}

// Letter returns what the strategy is called in the names.
func (n Names) Letter() string { return n.letter }
