package hybridlimit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trypema/trypema/internal/lease"
)

// waiter is a call that waits for the answer to a message. The lock of the key's shard guards it. The caller
// may read it without the lock once done is closed, which happens once.
type waiter struct {
	lease.Call
	asked    bool // the message under way asks for it
	stays    bool // several limits: it comes back for what was granted, and counts as waiting until then
	done     chan struct{}
	ended    bool           // done is closed
	decision lease.Decision // unless failed, or fault
	failed   bool           // there is no decision: the message was lost, or the timeout is over
	fault    error          // what Redis said about the key
}

// end says that the waiter has its answer. The shard must be locked.
func (w *waiter) end() {
	w.ended = true
	close(w.done)
}

// waitFor returns when w has ended, or the timeout since began is over; then w has failed. It returns the
// fault of the key, or the error of ctx.
func (l *limiter) waitFor(ctx context.Context, k *account, w *waiter, began int64) (err error) {
	defer func() { // also if the context panics
		sh := l.lock(k)
		defer sh.Unlock()
		k.waiting = slices.DeleteFunc(k.waiting, func(o *waiter) bool { return o == w })
		if w.ended { // the answer was there first
			err = w.fault
		} else {
			w.failed = true
		}
	}()
	return l.await(ctx, w.done, began)
}

// await returns when done is closed, or the timeout since began is over; with an error if ctx ends before.
func (l *limiter) await(ctx context.Context, done chan struct{}, began int64) error {
	timeout := time.NewTimer(l.options.Timeout - time.Duration(l.now()-began))
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	case <-ctx.Done():
		return fmt.Errorf("hybridlimit: not decided: %w", ended(ctx))
	}
	return nil
}

// serve decides the calls that wait, in the order in which they came, after the answer to a message. A call
// that the message asked for is denied if the grant does not suffice, unless the lease has ended already. It
// reports whether calls go on waiting. The shard must be locked.
func (l *limiter) serve(k *account, at *lease.Moment) (more bool) {
	rest := k.waiting[:0]
	for _, w := range k.waiting {
		if !w.ended {
			w.decision = lease.Decision{}
			k.Decide(&w.decision, at, &w.Call)
			if w.decision.AskLedger && (!w.asked || !k.Fresh(at.Now)) {
				rest, more = append(rest, w), true
				continue
			}
			if w.decision.AskLedger {
				k.Deny(&w.decision, at, &w.Call)
			}
			w.end()
		}
		if w.stays {
			rest = append(rest, w)
		}
	}
	clear(k.waiting[len(rest):])
	k.waiting = rest
	return more
}

// fail ends all waiters: with fault as their error, or to try again if fault is nil. The shard must be
// locked.
func (k *account) fail(fault error) {
	for _, w := range k.waiting {
		if !w.ended {
			w.failed, w.fault = fault == nil, fault
			w.end()
		}
	}
	k.waiting = nil
}

// wait returns a channel that is closed at the end of the message under way, or else of the next. The shard
// must be locked.
func (k *account) wait() chan struct{} {
	if k.messageEnd == nil {
		k.messageEnd = make(chan struct{})
	}
	return k.messageEnd
}

// wake closes the channel that wait returned. The shard must be locked.
func (k *account) wake() {
	if k.messageEnd != nil {
		close(k.messageEnd)
		k.messageEnd = nil
	}
}
