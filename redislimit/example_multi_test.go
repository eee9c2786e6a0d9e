package redislimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// All servers share both limits, and one script decides by both.
func ExampleProvider_Bind() {
	conn := fakeredis.New() // yours is goredisconn.New(client) or rueidisconn.New(client)
	limits, err := redislimit.New(conn, redislimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	both, err := limits.Bind(trypema.StrategyAbsolute,
		trypema.Limit{Name: "second", Rate: trypema.PerSecond(10), Window: time.Second},
		trypema.Limit{Name: "hour", Rate: trypema.PerHour(12), Window: time.Hour})
	if err != nil {
		panic(err)
	}
	for range 2 {
		d, err := both.AllowN(context.Background(), "user:42", 8)
		if err != nil {
			panic(err)
		}
		fmt.Println(d.Outcome, d.RefusedBy, d.Remaining)
	}
	// Output:
	// allowed  2
	// rejected hour 4
}
