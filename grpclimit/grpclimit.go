// Package grpclimit puts a limiter in front of gRPC servers, and behind gRPC clients.
//
// New makes a [Limit], whose four interceptors are for unary and streaming calls on both sides. A call that
// is denied ends with the code ResourceExhausted, and with two details: RetryInfo, after how long the same
// call fits, if waiting helps, and QuotaFailure, which names the policy.
//
// No status has a key, or what an error says: it may name a customer, or a server. Why a call could not be
// judged is for the log, and for errors.Is in this process.
package grpclimit

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/guard"
	"github.com/trypema/trypema/internal/invalid"
	"github.com/trypema/trypema/internal/middleware"
)

// Options say what New limits, and how. Limiter and one of Rate and RateOf are required, or Decide; all else
// has a default. A method is named in full, as "/package.Service/Method".
type Options struct {
	// Limiter decides. It may be shared with others: calls with the same key then count together.
	Limiter trypema.Limiter

	// Rate is that of every call.
	Rate trypema.Rate

	// RateOf is the rate of a call, by method or by who calls.
	RateOf func(ctx context.Context, method string) trypema.Rate

	// Decide decides instead of Limiter, on a call with a key and a cost: by a trypema.Bound, or by
	// policies. Who refused, by Decision.RefusedBy, is named in QuotaFailure.
	Decide func(ctx context.Context, method, key string, cost uint64) (trypema.Decision, error)

	// Key says who shares a limit. Calls for which it finds no key share one. Default ByPeer() on servers; on
	// clients the target of the connection.
	Key KeyFunc

	// Cost is that of a call. Default 1 for each; must be at least 1.
	Cost func(ctx context.Context, method string) uint64

	// Skip names calls that are not limited: health checks, say. Default none.
	Skip func(ctx context.Context, method string) bool

	// Messages has each message of a stream that comes from the client cost as much as a call, in addition to
	// the call. Where one is denied, the stream ends: on a server its context does, and unless the handler
	// returns an error of its own, the denial is the status of the call. On a client SendMsg returns the
	// denial, RecvMsg returns it, too, and the server sees a call that was canceled.
	Messages bool

	// MaxWait is how long a call of a client may wait for its turn. One that would have to wait longer, or
	// beyond the deadline of its context, fails at once. Default 0: none waits. Servers do not wait.
	MaxWait time.Duration

	// Shadow lets every call pass. Decisions are made, counted and seen by Seen.
	Shadow bool

	// Name is the name of the policy, for clients: printable UTF-8 without a space at either end. Default
	// "default".
	Name string

	// Failed returns how a call ends on which the limiter could not decide: a status, which clients see as it
	// is. The error is one of package trypema, such as ErrInvalidRate for what RateOf returned, or that of
	// the call's context. A Redis outage is not an error: the provider's failure policy decides, and
	// Decision.Fallback says so. Where Failed returns nil, the default applies.
	//
	// The default says only that the limit cannot be judged. The code is Internal for a mistake that no retry
	// cures (ErrInvalidRate, ErrInvalidCost, ErrInvalidKey, ErrInvalidOptions and ErrUnknownPolicy), Canceled
	// or DeadlineExceeded if the context of the call has ended, and otherwise Unavailable.
	Failed func(ctx context.Context, method string, err error) error

	// Logger is told why calls could not be judged, without Failed or with Shadow, and what panicked: the
	// first error, and then at most one a minute. That the context of a call has ended is not logged. Default
	// slog.Default().
	Logger *slog.Logger

	// Seen is told of each decision. It must not block. Default nil.
	Seen func(ctx context.Context, method string, d trypema.Decision, err error)
}

// Limit is a limit for calls. It is made by New.
type Limit struct {
	o        Options
	failures *middleware.Failures
}

// New returns a Limit, or an error that wraps trypema.ErrInvalidOptions and names the field.
func New(o Options) (*Limit, error) {
	if err := middleware.Check("grpclimit.Options", o.Limiter, o.Rate, o.RateOf != nil, o.Decide != nil); err != nil {
		return nil, err
	}
	if o.MaxWait < 0 {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "grpclimit.Options.MaxWait is %v; it must be at least 0", o.MaxWait)
	}
	if !invalid.Name(o.Name) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"grpclimit.Options.Name is %q; it must be %s", o.Name, invalid.NameRule)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	return &Limit{o, middleware.NewFailures(o.Logger, "grpclimit: calls cannot be judged")}, nil
}

// serve is admit on a server. gRPC does not recover a panic, so one of a function of the options would end
// the process.
func (l *Limit) serve(ctx context.Context, method string, key KeyFunc) (err error) {
	panicked := guard.Call("a function of grpclimit.Options", func() { err = l.admit(ctx, method, key, 0) })
	if panicked == nil {
		return err
	}
	l.log(ctx, method, panicked)
	if l.o.Shadow {
		return nil
	}
	return &failure{status.New(codes.Internal, cannotJudge), panicked}
}

// admit returns nil for a call that may pass, after waiting for it at most so long.
func (l *Limit) admit(ctx context.Context, method string, key KeyFunc, wait time.Duration) error {
	if l.o.Skip != nil && l.o.Skip(ctx, method) {
		return nil
	}
	if l.o.Key != nil {
		key = l.o.Key
	}
	k, ok := key(ctx, method)
	if !ok {
		k = middleware.Keyless
	}
	cost := uint64(1)
	if l.o.Cost != nil {
		cost = l.o.Cost(ctx, method)
	}
	decide := l.o.Decide
	if decide == nil {
		rate := l.o.Rate
		if l.o.RateOf != nil {
			rate = l.o.RateOf(ctx, method)
		}
		decide = func(ctx context.Context, _, key string, cost uint64) (trypema.Decision, error) {
			return l.o.Limiter.AllowN(ctx, key, rate, cost)
		}
	}
	if l.o.Shadow {
		wait = 0
	}
	d, err := middleware.Allow(ctx, wait, func() (trypema.Decision, error) { return decide(ctx, method, k, cost) })
	if l.o.Seen != nil {
		l.o.Seen(ctx, method, d, err)
	}
	switch {
	case err != nil && l.o.Shadow:
		l.log(ctx, method, err)
	case err != nil:
		return l.failed(ctx, method, err)
	case !d.Allowed && !l.o.Shadow:
		return l.denied(d)
	}
	return nil
}

// denied is the status of a denial.
func (l *Limit) denied(d trypema.Decision) error {
	text := "rate limit exceeded"
	if d.Outcome == trypema.OutcomeSuppressed {
		text = "call shed under overload"
	}
	s := status.New(codes.ResourceExhausted, text)
	// A name that is not UTF-8 could not be encoded, nor what comes with it.
	subject := strings.ToValidUTF8(cmp.Or(d.RefusedBy, l.o.Name), "\uFFFD")
	violation := &errdetails.QuotaFailure_Violation{Subject: subject, Description: text}
	failure := &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{violation}}
	var detailed *status.Status
	var err error
	if d.RetryAfter == trypema.Never {
		detailed, err = s.WithDetails(failure)
	} else {
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(max(d.RetryAfter, 0))}
		detailed, err = s.WithDetails(failure, retry)
	}
	if err != nil { // a detail that can not be encoded
		return s.Err()
	}
	return detailed.Err()
}
