package rueidisconn_test

import (
	"fmt"

	"github.com/redis/rueidis"

	"github.com/trypema/trypema/rueidisconn"
)

// The client stays yours, with all that is set about it.
func ExampleNew() {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{"localhost:6379"},
		DisableCache: true, // a limiter caches nothing
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	_ = rueidisconn.New(client) // which redislimit.New and hybridlimit.New take
}

// On one server, a run of a script may have several keys; on a Cluster it has one.
func ExampleConn_OneServer() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"localhost:6379"}})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	fmt.Println(rueidisconn.New(client).OneServer())
}

// A client that is nil, because an error was not looked at, is found before the first call: New of the
// providers returns this error, too.
func ExampleConn_Check() {
	client, _ := rueidis.NewClient(rueidis.ClientOption{}) // the error says that there is no address

	fmt.Println(rueidisconn.New(client).Check())
	// Output: rueidisconn.New got no client; it needs a rueidis.Client
}

// In a Cluster, keys of neighbouring slots are mostly on one server.
func ExampleConn_Node() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"redis-1:6379", "redis-2:6379"}})
	if err != nil {
		panic(err)
	}
	defer client.Close()

	fmt.Println(rueidisconn.New(client).Node("user:42"))
}
