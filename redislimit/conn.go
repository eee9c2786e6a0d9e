package redislimit

import "context"

// Conn is the port to Redis. It speaks in standard types only, so an adapter to a client needs nothing of this package:
// goredisconn and rueidisconn are two, and yours is some thirty lines.
type Conn interface {
	// Run runs a script once for each of keys, with that one key as KEYS[1] and args[i] as its ARGV, in one round trip, or
	// in one to each node that holds some of the keys. It sends EVALSHA with the script's SHA-1, in lower case, and sees
	// to it that a server which does not know the script yet learns it.
	//
	// It calls answer exactly once for each key, in any order and from any goroutine, before it returns. A reply is an
	// array of int64 and string. err is what went wrong with that key: what the server said, whose text starts with its
	// error code, or why there was no answer. A call that may have reached the server is not repeated.
	//
	// The end of ctx is the end of the exchange. A client that can not be interrupted may overstay; its answers are then
	// no longer waited for.
	Run(ctx context.Context, script, sha1 string, keys []string, args [][]string, answer func(i int, reply []any, err error))
}
