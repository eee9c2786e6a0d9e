package redislimit

import "context"

// Conn is the port to Redis. It speaks in standard types only, so an adapter to a client needs nothing of
// this package: goredisconn, rueidisconn, valkeyconn and redigoconn are four.
//
// A Conn may have one method more, Check() error. New asks it, and refuses a Conn that returns an error: one
// that has no client, say.
//
// A Conn that panics, in a hook of the client perhaps, is one that does not answer: Options.OnFailure
// decides, and OnChange is told.
type Conn interface {
	// Run runs a script len(keys) times, with keys[i] as its KEYS, which are not none, and args[i] as its
	// ARGV, in one round trip, or in one to each node that holds some of the keys. It sends EVALSHA with the
	// script's SHA-1, in lower case; or, if sha1 is empty, EVAL with the script. A server that does not know
	// the script answers EVALSHA with the error NOSCRIPT, and is then sent EVAL by the providers.
	//
	// It calls answer exactly once for each i, in any order and from any goroutine, before it returns. A
	// reply is an array of int64 and string. err is what went wrong with that run: what the server said,
	// whose text starts with its error code, or why there was no answer. What may have reached the server is
	// not repeated.
	//
	// The end of ctx is the end of the exchange. A client that cannot be interrupted may overstay; its
	// answers are then no longer waited for.
	Run(ctx context.Context, script, sha1 string, keys, args [][]string, answer func(i int, reply []any, err error))

	// OneServer reports whether all keys are on one server, so that a script may have several. If it does
	// not, keys[i] are those of one key, in one slot. A server that turns out to be many, by the error
	// CROSSSLOT, is treated as such.
	OneServer() bool
}

// NodeConn is a Conn that knows which of several servers has a key. Each of them may then be unavailable by
// itself: the keys of the others are decided by Redis meanwhile, and its own by the failure policy at once.
// Without this, an answer from any server keeps calls for the keys of all others waiting for Options.Timeout.
// The providers call Run for the keys of each node by themselves, at the same time.
type NodeConn interface {
	Conn

	// Node names the server that has a key, or a few servers of which it is one, if the client does not know
	// better; "" if it is not known. It does no I/O and must be quick: it is asked for each key of an
	// exchange and, while a server is unavailable, for each call.
	Node(key string) string
}
