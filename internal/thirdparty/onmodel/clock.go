package onmodel

import (
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func (f *Fleet) wait(t *rapid.T) {
	w, b, s := f.Options.Window, f.Options.Bucket, f.Options.SyncInterval
	f.sleep(rapid.SampledFrom([]time.Duration{
		s, b, 2 * s, w / 10, w / 4, w - b, w - s, w - 1, w, w + 1, w + b, w + 2*s, 3 * w, 5 * s, 20 * s, f.Options.Timeout, f.Options.RetryInterval,
	}).Draw(t, "time"))
}

func (f *Fleet) waitLittle(t *rapid.T) {
	b, s := f.Options.Bucket, f.Options.SyncInterval
	f.sleep(rapid.SampledFrom([]time.Duration{time.Microsecond, s / 2, s - time.Microsecond, s + time.Microsecond, b / 3, b - time.Microsecond, b + time.Microsecond}).Draw(t, "time"))
}

// waitForEdge goes to the instant at which the oldest event of a window is as old as that, or near it.
func (f *Fleet) waitForEdge(t *rapid.T) {
	all := f.places()
	if len(all) == 0 {
		t.Skip("there is none")
	}
	p := rapid.SampledFrom(all).Draw(t, "window")
	near := rapid.SampledFrom([]time.Duration{0, -time.Microsecond, time.Microsecond, f.Options.BucketOf(p.window), f.Options.SyncInterval}).Draw(t, "beyond")
	for _, e := range f.records[p].events {
		if d := time.Until(e.to.Add(p.window + near)); d > 0 {
			f.sleep(d)
			return
		}
	}
	t.Skip("they have all expired")
}

// sleep sleeps. Redis counts in microseconds, so time goes by in these.
func (f *Fleet) sleep(d time.Duration) {
	to := time.Now().Add(max(d, time.Microsecond) + time.Microsecond - 1)
	time.Sleep(time.Until(to.Truncate(time.Microsecond)))
	synctest.Wait()
	f.expire()
}
