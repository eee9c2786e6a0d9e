package goredisconn_test

import (
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/goredisconn"
)

// The client stays yours, with all that is set about it. Nothing is asked of the server yet.
func ExampleNew() {
	client := redis.NewClient(&redis.Options{
		Addr:                  "localhost:6379",
		ContextTimeoutEnabled: true, // an exchange ends when the Timeout of the limiter has passed
		MaxRetries:            -1,   // without an answer, OnFailure decides
		DialerRetries:         1,    // a refused connection is known at once
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

// A client that is nil is found before the first call: New of the providers returns this error, too.
func ExampleConn_Check() {
	var client *redis.Client // an error on the way, say

	fmt.Println(goredisconn.New(client).Check())
	// Output: goredisconn.New got no client; it needs a redis.UniversalClient
}

// On which server of a Cluster a key is shows once something was asked.
func ExampleConn_Node() {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"redis-1:6379"}})
	defer client.Close()

	fmt.Printf("%q\n", goredisconn.New(client).Node("user:42"))
	// Output: ""
}
