package redislimit_test

import (
	"context"
	"fmt"

	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// behindProxy is a Conn to a proxy that looks like one server and spreads the keys over many.
type behindProxy struct{ redislimit.Conn }

func (behindProxy) OneServer() bool { return false }

// Who knows better than the client where the keys are says so. No script is then given keys that are apart.
func ExampleConn_oneServer() {
	conn := behindProxy{fakeredis.New()} // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := redislimit.New(conn, redislimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	d, err := limits.Absolute().Allow(context.Background(), "user:42", 10)
	fmt.Println(d.Outcome, err)
	// Output: allowed <nil>
}
