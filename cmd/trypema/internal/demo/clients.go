package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/trypema/trypema/internal/proof/poisson"
)

const (
	// patience is how late a call may be made. A client that is further behind skips what was due: it can not
	// keep up, and the report says so.
	patience = time.Second

	// tooLate is how late a call is that shows the load of the machine instead of the load that was asked
	// for.
	tooLate = 50 * time.Millisecond

	requestTimeout = 10 * time.Second
)

// sent is what the clients of one route did and were told.
type sent struct {
	admitted, declined uint64 // answered 200 and 429
	failed             uint64 // any other answer, or none
	skipped            uint64 // due but never sent
	late               uint64 // sent more than tooLate after they were due
	firstFail          error
}

func (s *sent) add(o sent) {
	s.admitted += o.admitted
	s.declined += o.declined
	s.failed += o.failed
	s.skipped += o.skipped
	s.late += o.late
	s.firstFail = cmp.Or(s.firstFail, o.firstFail)
}

func (s sent) answered() uint64 { return s.admitted + s.declined }
func (s sent) due() uint64      { return s.answered() + s.failed + s.skipped }

// untimely is the part of the calls that were made too late, or never.
func (s sent) untimely() float64 { return float64(s.late+s.skipped) / float64(max(1, s.due())) }

// offer sends requests to the urls until ctx ends, as a Poisson process of perSecond calls, and waits for the
// answers. Each of the clients is a Poisson process of its share; together they are one. A client makes its
// next call when that is due, or at once when the last answer came later, so the load does not wait for the
// server as long as some client is free. It stays with one of the urls, each client with the next.
func (w web) offer(ctx context.Context, urls []string, perSecond float64, clients int) sent {
	transport := w.transport(clients)
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: requestTimeout}

	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards total
		total sent
	)
	for i := range clients {
		wg.Go(func() {
			s := client(ctx, c, urls[i%len(urls)], perSecond/float64(clients))
			mu.Lock()
			defer mu.Unlock()
			total.add(s)
		})
	}
	wg.Wait()
	return total
}

// client is one caller.
func client(ctx context.Context, c *http.Client, url string, perSecond float64) (s sent) {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for calls := poisson.New(perSecond); ; {
		timer.Reset(max(calls.Due()-time.Since(start), 1))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		now := time.Since(start)
		if ctx.Err() != nil {
			s.skipped += calls.SkipTo(now)
			return s
		}
		switch behind := now - calls.Due(); {
		case behind > patience:
			s.skipped += calls.SkipTo(now)
			continue
		case behind > tooLate:
			s.late++
		}
		s.send(c, url)
		calls.Next()
	}
}

// send makes one call. It is not bound to the end of the load: a call that was decided shall also be
// answered, so that the accounts of both sides can be compared.
func (s *sent) send(c *http.Client, url string) {
	status, _, err := get(c, url)
	switch {
	case err != nil:
	case status == http.StatusOK:
		s.admitted++
		return
	case status == http.StatusTooManyRequests:
		s.declined++
		return
	default:
		err = fmt.Errorf("%s answered %d", url, status)
	}
	s.failed++
	s.firstFail = cmp.Or(s.firstFail, err)
}

// get makes a call, and reads its answer to the end.
func get(c *http.Client, url string) (status int, header http.Header, err error) {
	response, err := c.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }() // what matters was read
	_, err = io.Copy(io.Discard, response.Body)  // a body that was read lets the connection be used again
	return response.StatusCode, response.Header, err
}
