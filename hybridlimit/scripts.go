package hybridlimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
	"github.com/trypema/trypema/redislimit"
)

// span is the window and the bucket as Redis counts them.
func (l *limiter) span() window.Span {
	return window.Span{Window: l.terms.Window / l.terms.Micro, Bucket: l.terms.Bucket / l.terms.Micro}
}

// spanArgs are the arguments that every script begins with.
func (l *limiter) spanArgs() []string { return redisproto.SpanArgs(l.span()) }

// windowOf is the window with that name, as mend.lua must know it.
func (l *limiter) windowOf(name string) redisproto.Windows {
	return redisproto.Windows{Kind: l.names.Letter(), Keys: []string{name}, Spans: []window.Span{l.span()}}
}

// runSet runs set.lua.
func (l *limiter) runSet(
	ctx context.Context, name string, args []string,
) (matched bool, have uint64, err error) {
	set := func(s *redisproto.Scripts) redisproto.Script { return s.Set }
	err = l.runOne(ctx, name, set, append(l.spanArgs(), args...), func(r *redisproto.Reader) {
		matched, have = r.Count(1) == 1, r.Count(1<<53)
	})
	return matched, have, err
}

// runOne runs a script on one key, and reads its reply. It does not wait for a client that cannot be
// interrupted.
func (l *limiter) runOne(
	ctx context.Context, name string, pick func(*redisproto.Scripts) redisproto.Script, args []string,
	read func(*redisproto.Reader),
) error {
	type result struct {
		reply []any
		err   error
	}
	done := make(chan result, 1)
	go redisproto.Run(ctx, l.server, pick, []string{name},
		func(names []string, _ bool) [][]string { return [][]string{names} },
		func([]string) ([]string, []string) { return []string{name}, args },
		func(names []string, reply []any, err error, last bool) (again, mend []string) {
			if fault, ok := redisproto.NewReader(reply).Fault(); ok && err == nil {
				err = errors.New(fault)
			}
			if redisproto.IsUnreadable(err) && !last {
				return names, nil
			}
			done <- result{reply, err}
			return nil, nil
		}, l.windowOf)
	var err error
	select {
	case got := <-done:
		if err = got.err; err != nil {
			break
		}
		r := redisproto.NewReader(got.reply)
		read(r)
		err = r.Done()
	case <-ctx.Done():
		err = ended(ctx)
	}
	switch {
	case redisproto.IsKeyFault(err):
		return fmt.Errorf("hybridlimit: the Redis key %q: %w", name, err)
	case err != nil && !errors.Is(err, redislimit.ErrUnavailable):
		return fmt.Errorf("%w: %w", redislimit.ErrUnavailable, err)
	}
	return err
}

// within bounds all that one call does, by the timeout.
func (l *limiter) within(ctx context.Context) (context.Context, context.CancelFunc) {
	late := fmt.Errorf("%w: %w", redislimit.ErrUnavailable, l.noAnswer())
	return context.WithTimeoutCause(ctx, l.options.Timeout, late)
}

// ended returns why a context has ended: it is over, or that of a call was, by within.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, redislimit.ErrUnavailable) {
		return cause
	}
	return ctx.Err()
}
