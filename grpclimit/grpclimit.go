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

// Options say what New limits, and how. One of Bound, Policies, Limiter and Decide decides; all else has a
// default. A method is named in full, as "/package.Service/Method".
type Options struct {
	// Bound decides, by the limits that were given to Bind. It may be shared with others: calls with the same
	// key then count together. Calls of a client that wait are made in the order in which they came.
	Bound *trypema.Bound

	// Policies decide, each call by the policy that PolicyOf names, and in turn, too. A call costs what the
	// policy says, unless there is Cost.
	Policies *trypema.Policies

	// PolicyOf is the policy of a call: the plan of a customer, say. One that Policies do not have fails the
	// call with trypema.ErrUnknownPolicy: see Failed.
	PolicyOf func(ctx context.Context, method string) string

	// Limiter decides, by Rate or RateOf. It may be shared with others. A call of a client that waits may be
	// overtaken.
	Limiter trypema.Limiter

	// Rate is the rate of every call.
	Rate trypema.Rate

	// RateOf is the rate of a call, by method or by who calls.
	RateOf func(ctx context.Context, method string) trypema.Rate

	// Decide decides on a call with a key and a cost, which Cost may have made 0: by trypema.All, say.
	// QuotaFailure names the limit that refused, by Decision.RefusedBy.
	Decide func(ctx context.Context, method, key string, cost uint64) (trypema.Decision, error)

	// Key says which calls share a limit. Default ByPeer() on servers; on clients the target of the
	// connection.
	Key KeyFunc

	// Keyless says what becomes of calls for which Key finds none. Default KeylessShare.
	Keyless Keyless

	// Cost is the cost of a call. Default 1, or what its policy says. A call of cost 0 is judged as if it had
	// cost 1, and counted as nothing: it passes if there is any room.
	Cost func(ctx context.Context, method string) uint64

	// Skip names calls that are not limited: health checks, or some networks, by SkipNetworks. Default none.
	Skip func(ctx context.Context, method string) bool

	// Messages has each message of a stream that comes from the client cost as much as a call, in addition to
	// the call. A denied message ends the stream. On a server it ends the context of the stream, and the
	// denial is the status of the call unless the handler returns an error of its own. On a client SendMsg
	// and RecvMsg return the denial, and the server sees a call that was canceled.
	Messages bool

	// MaxWait is how long a call of a client may wait for its turn. One that would have to wait longer, or
	// beyond the deadline of its context, fails at once. Default 0: none waits. Servers do not wait.
	MaxWait time.Duration

	// Shadow lets every call pass. Decisions are made, counted and given to Seen.
	Shadow bool

	// Name is the name of the policy, for clients: printable UTF-8 without a space at either end. Default
	// "default".
	Name string

	// Denied returns how a call ends that was denied: a status, which clients see as it is. Where it returns
	// nil, the default applies: the code ResourceExhausted, with RetryInfo and QuotaFailure.
	Denied func(ctx context.Context, method string, d trypema.Decision) error

	// Failed returns how a call ends on which the limiter could not decide: a status, which clients see as it
	// is. The error is one of package trypema, such as ErrInvalidRate for what RateOf returned, or that of
	// the call's context. A Redis outage is not an error: the provider's failure policy decides, and
	// Decision.Fallback says so. Where Failed returns nil, the default applies.
	//
	// The default says only that the limit cannot be judged. The code is Internal for a mistake that no retry
	// cures (ErrInvalidRate, ErrInvalidCost, ErrInvalidKey, ErrInvalidOptions and ErrUnknownPolicy), Canceled
	// or DeadlineExceeded if the context of the call has ended, and otherwise Unavailable.
	Failed func(ctx context.Context, method string, err error) error

	// Logger gets the errors of calls that could not be judged, without Failed or with Shadow, and panics:
	// the first, and then at most one a minute. The end of a call's context is not logged. Default
	// slog.Default().
	Logger *slog.Logger

	// Seen is called with each decision. It must not block. Default nil.
	Seen func(ctx context.Context, method string, d trypema.Decision, err error)
}

// Keyless says what becomes of calls without a key.
type Keyless uint8

const (
	// KeylessShare has all of them share one limit.
	KeylessShare Keyless = iota
	// KeylessDeny ends them with the code InvalidArgument.
	KeylessDeny
	// KeylessPass lets them pass, unlimited.
	KeylessPass
)

// Limit is a limit for calls. It is made by New.
type Limit struct {
	o        Options
	judge    middleware.Options[call]
	failures *middleware.Failures
}

// call is what a limit judges.
type call struct {
	ctx    context.Context
	method string
	key    KeyFunc // where the options have none
}

// New returns a Limit, or an error that wraps trypema.ErrInvalidOptions and names the field.
func New(o Options) (*Limit, error) {
	l := &Limit{
		o: o,
		judge: middleware.Options[call]{
			Name: "grpclimit.Options", Context: func(c call) context.Context { return c.ctx },
			Bound: o.Bound, Policies: o.Policies, PolicyOf: on(o.PolicyOf),
			Limiter: o.Limiter, Rate: o.Rate, RateOf: on(o.RateOf),
			Keyless: middleware.Keyless(o.Keyless), Cost: on(o.Cost), Skip: on(o.Skip),
			MaxWait: o.MaxWait, Shadow: o.Shadow,
		},
		failures: middleware.NewFailures(o.Logger, "grpclimit: calls cannot be judged"),
	}
	l.judge.Key = func(c call) (string, bool) {
		if o.Key != nil {
			return o.Key(c.ctx, c.method)
		}
		return c.key(c.ctx, c.method)
	}
	if o.Decide != nil {
		l.judge.Decide = func(c call, key string, cost uint64) (trypema.Decision, error) {
			return o.Decide(c.ctx, c.method, key, cost)
		}
	}
	if o.Seen != nil {
		l.judge.Seen = func(c call, d trypema.Decision, err error) { o.Seen(c.ctx, c.method, d, err) }
	}
	if err := l.judge.Check(); err != nil {
		return nil, err
	}
	if !invalid.Name(o.Name) {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions,
			"grpclimit.Options.Name is %q; it must be %s", o.Name, invalid.NameRule)
	}
	if o.Name == "" {
		l.o.Name = "default"
	}
	return l, nil
}

// on is a function of the options for a call.
func on[T any](f func(ctx context.Context, method string) T) func(call) T {
	if f == nil {
		return nil
	}
	return func(c call) T { return f(c.ctx, c.method) }
}

// KeyOf returns the key by which a call to a server is limited, as the limiter stores it, and whether it has
// one: for programs that ask for the usage of a client, or delete it.
func (l *Limit) KeyOf(ctx context.Context, method string) (key string, ok bool) {
	return l.judge.KeyOf(call{ctx, method, ByPeer()})
}

// serve is admit on a server, where no call waits. gRPC does not recover a panic, so one of a function of the
// options would end the process.
func (l *Limit) serve(c call) (ctx context.Context, err error) {
	panicked := guard.Call("a function of grpclimit.Options", func() { ctx, err = l.admit(c, 0) })
	if panicked == nil {
		return ctx, err
	}
	l.log(c.ctx, c.method, panicked)
	if l.o.Shadow {
		return c.ctx, nil
	}
	return nil, &failure{status.New(codes.Internal, cannotJudge), panicked}
}

// admit returns the context of a call that may pass, which carries the decision, after waiting for it at most
// so long.
func (l *Limit) admit(c call, most time.Duration) (context.Context, error) {
	v := l.judge.Identify(c)
	switch {
	case v.Keyless:
		return nil, status.Error(codes.InvalidArgument, "the call does not identify its client")
	case !v.Decided:
		return c.ctx, nil
	}
	err := l.judge.DecideOn(c, &v, most)
	switch {
	case err != nil && l.o.Shadow:
		l.log(c.ctx, c.method, err)
		return c.ctx, nil
	case err != nil:
		return nil, l.failed(c.ctx, c.method, err)
	case !v.Allowed && !l.o.Shadow:
		if l.o.Denied != nil {
			if own := l.o.Denied(c.ctx, c.method, v.Decision); own != nil {
				return nil, own
			}
		}
		return nil, l.denied(v.Decision)
	}
	return trypema.NewContext(c.ctx, v.Decision), nil
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
	if err != nil { // a detail that cannot be encoded
		return s.Err()
	}
	return detailed.Err()
}
