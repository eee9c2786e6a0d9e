package store

import (
	"time"

	"github.com/alicebob/miniredis/v2"
)

// embedded is a miniredis in this process. Its clock is the real one, but keys with a time to live go only
// when it is told how much time has passed, by a goroutine here.
type embedded struct {
	redis *miniredis.Miniredis
	stop  chan struct{}
	ended chan struct{}
}

func startEmbedded(shortest time.Duration) (*embedded, error) {
	e := newEmbedded(shortest)
	if err := e.redis.Start(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// newEmbedded returns one that nobody can reach yet, whose keys age.
func newEmbedded(shortest time.Duration) *embedded {
	e := &embedded{redis: miniredis.NewMiniRedis(), stop: make(chan struct{}), ended: make(chan struct{})}
	go e.age(shortest)
	return e
}

// age lets time pass for the keys. All of them age by as much, and one may have been written just before; so
// they age at half the speed, and by no more than half of the shortest life at once. Then a key lives for at
// least its time to live, which makes a limiter keep its promise, and for about twice that where there are
// not too many to look at.
func (e *embedded) age(shortest time.Duration) {
	defer close(e.ended)
	pause := max(shortest/2, time.Millisecond)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for last := time.Now(); ; {
		select {
		case <-e.stop:
			return
		case <-timer.C:
		}
		began := time.Now()
		e.redis.FastForward(min(began.Sub(last), shortest) / 2)
		last = began
		timer.Reset(max(pause, 20*time.Since(began))) // it sorts all names, while nobody can use the server
	}
}

// close ends the server, and returns when nothing of it runs any more.
func (e *embedded) close() {
	close(e.stop)
	<-e.ended
	e.redis.Close()
}
