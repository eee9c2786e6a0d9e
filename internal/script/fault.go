package script

import "strings"

// IsKeyFault reports whether an error of Redis is about what a key holds. To ask again, or another server, does not help.
func IsKeyFault(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "WRONGTYPE") || strings.Contains(err.Error(), "NOTAWINDOW"))
}

// lacksStruct reports whether an error says that the server's Lua does not have the library struct.
func lacksStruct(err error) bool {
	return err != nil && strings.Contains(err.Error(), "variable 'struct'")
}

// isCrossSlot reports whether an error says that the keys of one script are not on one node.
func isCrossSlot(err error) bool { return err != nil && strings.Contains(err.Error(), "CROSSSLOT") }

// isMoving reports whether an error says that keys are being moved between nodes of a Cluster: they are on both now, or on
// another one than the client believes, though it has asked around.
func isMoving(err error) bool {
	if err == nil {
		return false
	}
	code, _, _ := strings.Cut(err.Error(), " ")
	return code == "TRYAGAIN" || code == "ASK" || code == "MOVED"
}
