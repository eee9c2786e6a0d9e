package hybridlimit

import (
	"context"
	"fmt"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/redisproto"
)

// flush settles all that is unsettled, and gives back all leases if giveBack is set. It ends with the first
// fault of Redis; a fault of one key does not keep the others from settling.
func (l *limiter) flush(ctx context.Context, giveBack bool) error {
	var wrong error
	for keys := l.activeKeys(); len(keys) > 0 && (wrong == nil || redisproto.IsKeyFault(wrong)); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(lease.MaxBatch, len(keys))
		var messages []*message
		var later []*account // those of which a message is under way
		var answered []chan struct{}
		for _, k := range keys[:n] {
			sh := l.lock(k)
			switch {
			case k.UnderWay():
				later = append(later, k)
				answered = append(answered, k.wait())
			case k.Unsettled() || giveBack && k.Lent(l.now()):
				k.MustTell()
				messages = append(messages, l.message(k, l.now(), giveBack))
			}
			sh.Unlock()
		}
		keys = append(later, keys[n:]...)
		if err := l.exchange(ctx, messages); err != nil {
			wrong = err
		}
		for _, done := range answered {
			select {
			case <-done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if wrong != nil {
		return fmt.Errorf("hybridlimit: not all could be settled: %w", wrong)
	}
	return nil
}

// close ends the timer and the flights, and settles everything, once.
func (l *limiter) close() error {
	var err error
	l.closing.Do(func() {
		l.closed.Store(true)
		s := &l.settler
		s.mu.Lock()
		s.closed = true
		if s.timer != nil {
			s.timer.Stop()
		}
		s.mu.Unlock()
		s.running.Wait()
		err = l.flush(context.Background(), true)
		for _, k := range l.activeKeys() { // calls that wait see that the limiter is closed
			sh := l.lock(k)
			k.fail(nil)
			k.wake()
			sh.Unlock()
		}
		s.mu.Lock()
		s.schedule.Init(&l.terms) // it keeps no account
		s.mu.Unlock()
		l.table.Close()
	})
	return err
}
