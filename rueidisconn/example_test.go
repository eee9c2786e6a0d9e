package rueidisconn_test

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"

	"github.com/redis/rueidis"

	"github.com/trypema/trypema/rueidisconn"
)

// dial stands for a Redis in these examples. Your client needs no DialCtxFn.
func dial(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
	return redisServer.dial(ctx)
}

var redisServer server

// The client stays yours, with all that is set about it.
func ExampleNew() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{"localhost:6379"},
		DialCtxFn:    dial, // only here
		DisableCache: true, // a limiter caches nothing
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	conn := rueidisconn.New(client) // which redislimit.New and hybridlimit.New take
	fmt.Println(conn.OneServer())
	// Output: true
}

// On one server, a run of a script may have several keys.
func ExampleConn_OneServer() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       []string{"localhost:6379"},
		DialCtxFn:         dial, // only here
		ForceSingleClient: true,
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	fmt.Println(rueidisconn.New(client).OneServer())
	// Output: true
}

// What a limiter does with a Conn: it runs a script for several keys in one exchange. The server learns it first.
func ExampleConn_Run() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"localhost:6379"},
		DialCtxFn:   dial, // only here
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	const script = "return {KEYS[1], #ARGV}"
	sum := sha1.Sum([]byte(script))
	keys, args := [][]string{{"ada"}, {"bob"}}, [][]string{{"1", "2", "3"}, {}}
	rueidisconn.New(client).Run(context.Background(), script, hex.EncodeToString(sum[:]), keys, args,
		func(i int, reply []any, err error) { fmt.Println(i, reply, err) })
	// Unordered output:
	// 0 [ada 3] <nil>
	// 1 [bob 0] <nil>
}
