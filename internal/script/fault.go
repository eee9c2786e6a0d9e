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
