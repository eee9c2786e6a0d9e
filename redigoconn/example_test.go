package redigoconn_test

import (
	"context"
	"fmt"

	"github.com/gomodule/redigo/redis"

	"github.com/trypema/trypema/redigoconn"
)

// The pool stays yours, with all that is set about it. Nothing is asked of the server yet.
func ExampleNew() {
	pool := &redis.Pool{
		MaxIdle: 16,
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			return redis.DialContext(ctx, "tcp", "localhost:6379")
		},
	}
	defer pool.Close()

	conn := redigoconn.New(pool) // which redislimit.New and hybridlimit.New take
	fmt.Println(conn.OneServer())
	// Output: true
}

// A run of a script may have several keys, as redigo does not support Cluster.
func ExampleConn_OneServer() {
	pool := &redis.Pool{Dial: func() (redis.Conn, error) { return redis.Dial("tcp", "localhost:6379") }}
	defer pool.Close()

	fmt.Println(redigoconn.New(pool).OneServer())
	// Output: true
}

// A pool that is nil is found before the first call: New of the providers returns this error, too.
func ExampleConn_Check() {
	fmt.Println(redigoconn.New(nil).Check())
	// Output: redigoconn.New got no pool; it needs a *redis.Pool
}
