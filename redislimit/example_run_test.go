package redislimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/trypema/trypema/internal/proof/fakeredis"
	"github.com/trypema/trypema/redislimit"
)

// measured is a Conn that reports how long Redis takes.
type measured struct {
	redislimit.Conn
	report func(scripts int, took time.Duration)
}

func (m measured) Run(
	ctx context.Context, script, sha1 string, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	began := time.Now()
	m.Conn.Run(ctx, script, sha1, keys, args, answer)
	m.report(len(keys), time.Since(began))
}

// A Conn around another one measures, logs or counts what goes to Redis.
func ExampleConn_run() {
	conn := measured{
		Conn:   fakeredis.New(), // yours is goredisconn.New(client) or rueidisconn.New(client)
		report: func(scripts int, took time.Duration) { fmt.Println(scripts, took >= 0) },
	}
	limits, err := redislimit.New(conn, redislimit.Options{})
	if err != nil {
		panic(err)
	}
	defer limits.Close()

	if _, err := limits.Absolute().Allow(context.Background(), "user:42", 10); err != nil {
		panic(err)
	}
	// Output: 1 true
}
