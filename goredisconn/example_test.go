package goredisconn_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/goredisconn"
)

// The client stays yours, with all that is set about it. Nothing is asked of the server yet.
func ExampleNew() {
	client := redis.NewClient(&redis.Options{
		Addr:                  "localhost:6379",
		ContextTimeoutEnabled: true, // an exchange ends when the Timeout of the limiter has passed
	})
	defer client.Close()

	conn := goredisconn.New(client) // which redislimit.New and hybridlimit.New take
	fmt.Println(conn.OneServer())
	// Output: true
}

// The configuration says whether it is one server, a Cluster or Sentinel.
func ExampleNew_universal() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:       []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		DialTimeout: 200 * time.Millisecond,
	})
	defer client.Close()

	conn := goredisconn.New(client)
	fmt.Println(conn.OneServer())
	// Output: false
}

// On many servers, each run of a script has one key.
func ExampleConn_OneServer() {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"redis-1:6379"}})
	defer client.Close()

	fmt.Println(goredisconn.New(client).OneServer())
	// Output: false
}

// What a limiter does with a Conn: it runs a script for several keys in one exchange. The server learns it first.
func ExampleConn_Run() {
	client := redis.NewClient(&redis.Options{
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) { return redisServer.dial(ctx) }, // yours has an Addr
	})
	defer client.Close()

	const script = "return {KEYS[1], #ARGV}"
	sum := sha1.Sum([]byte(script))
	keys, args := [][]string{{"ada"}, {"bob"}}, [][]string{{"1", "2", "3"}, {}}
	goredisconn.New(client).Run(context.Background(), script, hex.EncodeToString(sum[:]), keys, args,
		func(i int, reply []any, err error) { fmt.Println(i, reply, err) })
	// Unordered output:
	// 0 [ada 3] <nil>
	// 1 [bob 0] <nil>
}

var redisServer server
