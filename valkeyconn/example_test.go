package valkeyconn_test

import (
	"fmt"

	"github.com/valkey-io/valkey-go"

	"github.com/trypema/trypema/valkeyconn"
)

// The client stays yours, with all that is set about it.
func ExampleNew() {
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress:  []string{"localhost:6379"},
		DisableCache: true, // a limiter caches nothing
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	_ = valkeyconn.New(client) // which redislimit.New and hybridlimit.New take
}

// On one server, a run of a script may have several keys; on a Cluster it has one.
func ExampleConn_OneServer() {
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{"localhost:6379"}})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	fmt.Println(valkeyconn.New(client).OneServer())
}

// A client that is nil, because an error was not looked at, is found before the first call: New of the
// providers returns this error, too.
func ExampleConn_Check() {
	client, _ := valkey.NewClient(valkey.ClientOption{}) // the error says that there is no address

	fmt.Println(valkeyconn.New(client).Check())
	// Output: valkeyconn.New got no client; it needs a valkey.Client
}

// In a Cluster, keys of neighbouring slots are mostly on one server.
func ExampleConn_Node() {
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{"redis-1:6379", "redis-2:6379"}})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	fmt.Println(valkeyconn.New(client).Node("user:42"))
}
