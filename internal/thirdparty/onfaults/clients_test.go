package onfaults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/internal/proof/explore"
	"github.com/trypema/trypema/internal/thirdparty/redisserver"
	"github.com/trypema/trypema/internal/thirdparty/rig"
	"github.com/trypema/trypema/redislimit"
)

// Redis closes connections whose output buffer is full, in the middle of an exchange, again and again: no
// call is an error or hangs, no window holds more than the limit, and all is well once there is room again.
func TestOutputBuffer(t *testing.T) {
	const keys = 60
	for _, kind := range []rig.Kind{{Suppressed: true}, {Hybrid: true, Suppressed: true}} { // whose replies are long
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			repeat(t, func(t *testing.T) {
				server := redisserver.Start(t)
				o := hasty(redislimit.FailClosed, 1)
				o.HardLimitFactor = 1.5
				o.Bucket = window / 200
				load := rig.Load{Kind: kind, Window: window, Rate: 10 / window.Seconds(), Times: 4, Callers: keys}
				for i := range keys {
					load.Keys = append(load.Keys, fmt.Sprint(i))
				}
				var dials atomic.Int64
				conn := func() redislimit.Conn {
					return goredisconn.New(rig.Closing(t, redis.NewClient(&redis.Options{
						Addr: server.Addr(), ReadTimeout: time.Second, Dialer: func(_ context.Context, network, addr string) (net.Conn, error) {
							dials.Add(1)
							return net.Dial(network, addr)
						},
					})))
				}
				f := rig.NewFleet(t, load, o, conn(), conn())
				f.Start()
				time.Sleep(window)
				before, again := dials.Load(), int64(0)
				do(t, server.Client(), "CONFIG", "SET", "client-output-buffer-limit", "normal 1 0 0")
				time.Sleep(window)
				rig.Wait(t, func() error {
					if again = dials.Load() - before; again < 2 {
						return fmt.Errorf("%d connections were made once more", again)
					}
					return nil
				})
				do(t, server.Client(), "CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
				ended := time.Now()
				back(f)
				f.Used("afterwards", .9, rig.Since(ended.Add(window)))
				f.Stop()
				f.Summary(fmt.Sprintf("%d connections were made once more", again))
				f.Bound("of a key", f.Capacity()*3/2)
			})
		})
	}
}

// Many clients are connected to Redis, and say something now and then: a call does not hang, and the limit
// holds. When Redis takes no more, those that have a connection go on, those that have none fall back, and
// ask again once there is room.
func TestConnections(t *testing.T) {
	t.Parallel()
	crowd := 300
	if explore.Long() {
		crowd = 10_000
	}
	server := redisserver.Start(t, "--maxclients", fmt.Sprint(crowd))
	addr := server.Addr()
	load := rig.Load{Window: window, Rate: perSec, Times: 3, Callers: 2}
	redisFleet := rig.NewFleet(t, load, hasty(redislimit.FailClosed, 1), dial(t, addr), dial(t, addr))
	load.Hybrid = true
	hybridFleet := rig.NewFleet(t, load, hasty(redislimit.FailClosed, 1), dial(t, addr), dial(t, addr))
	fleets := []*rig.Fleet{redisFleet, hybridFleet}
	late := rig.Kind{}.Open(t, dial(t, addr), hasty(redislimit.FailClosed, 1)) // which connects when there is no room
	for _, f := range fleets {
		f.Start()
	}
	time.Sleep(window)
	joined := time.Now()
	var lines []net.Conn
	leave := func() {
		for _, c := range lines {
			_ = c.Close()
		}
		lines = nil
	}
	defer leave()
	var why error
	for len(lines) < crowd { // until Redis takes no more, or this system
		c, err := net.Dial("tcp", addr)
		if err != nil {
			why = err
			break
		}
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(answer, "+PONG") {
			_ = c.Close()
			if why = err; err == nil {
				why = errors.New(strings.TrimSpace(answer))
			}
			break
		}
		lines = append(lines, c)
	}
	t.Logf("%d connections in %v, then %v", len(lines), time.Since(joined).Round(time.Millisecond), why)
	isFull := strings.Contains(fmt.Sprint(why), "max number of clients")
	if !isFull && len(lines) < min(crowd, 900) {
		t.Fatalf("%d connections: %v", len(lines), why)
	}
	if d, err := late.Absolute().Allow(t.Context(), "late", 1000); err != nil ||
		isFull && (!d.Fallback || d.Allowed) {
		t.Errorf("without a connection: %+v, %v", d, err)
	}
	for range 3 { // they are not all idle
		for i := 0; i < len(lines); i += 10 {
			_, _ = lines[i].Write([]byte("PING\r\n"))
		}
		time.Sleep(window / 2)
	}
	for _, f := range fleets {
		f.Used("among the crowd", .9, rig.Since(joined))
	}
	leave()
	left := time.Now()
	rig.Wait(t, func() error {
		if d, err := late.Absolute().Allow(t.Context(), "late", 1000); err != nil || d.Fallback {
			return fmt.Errorf("Redis is not asked again: %+v, %w", d, err)
		}
		return nil
	})
	for _, f := range fleets {
		back(f)
		f.Used("afterwards", .9, rig.Since(left.Add(window)))
		f.Stop()
		f.Summary(f.String())
		f.Bound("of a key", f.Capacity())
	}
}
