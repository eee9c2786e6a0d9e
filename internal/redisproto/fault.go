package redisproto

import (
	"errors"
	"regexp"
	"strings"
)

// notAWindow begins what scripts say of a string that they cannot read.
const notAWindow = "NOTAWINDOW"

// IsUnreadable reports whether an error of Redis is about a string that scripts cannot read. It helps to mend
// the key.
func IsUnreadable(err error) bool { return err != nil && strings.Contains(err.Error(), notAWindow) }

// ErrAnswered is the error of a key that holds groups which contradict each other, where that was found after
// the calls were decided. They stay decided, and the key is to be mended.
var ErrAnswered = errors.New("the calls have an answer")

// IsKeyFault reports whether an error of Redis is about what a key holds. To ask again, or another server,
// does not help.
func IsKeyFault(err error) bool {
	return IsUnreadable(err) || err != nil && strings.Contains(err.Error(), "WRONGTYPE")
}

// lacksStruct reports whether an error says that the server's Lua does not have the library struct.
func lacksStruct(err error) bool {
	return err != nil && strings.Contains(err.Error(), "variable 'struct'")
}

// ended is how a server reports that a script has ended in the middle: its name and line, at the beginning or
// after those words of servers before Redis 7. What a command in a script came to has the line at the end.
var ended = regexp.MustCompile(`^(?:ERR |.*: )user_script:\d+: `)

// brokeOff reports whether an error says that a script came to an end over what a key holds.
func brokeOff(err error) bool {
	return err != nil && (ended.MatchString(err.Error()) || IsUnreadable(err)) &&
		!lacksStruct(err) && !strings.Contains(err.Error(), "Script killed by user")
}

// isCrossSlot reports whether an error says that the keys of one script are not on one node.
func isCrossSlot(err error) bool { return err != nil && strings.Contains(err.Error(), "CROSSSLOT") }

// isMoving reports whether an error says that keys are being moved between nodes of a Cluster: they are on
// both now, or on another one than the client believes, though it has asked around.
func isMoving(err error) bool {
	if err == nil {
		return false
	}
	code, _, _ := strings.Cut(err.Error(), " ")
	return code == "TRYAGAIN" || code == "ASK" || code == "MOVED"
}
