// Package grpclimit puts a limiter in front of gRPC servers, and behind gRPC clients.
//
// New makes a [Limit], whose four interceptors are for unary and streaming calls on both sides. A call that is denied ends with the code
// ResourceExhausted, and with two details: RetryInfo, after how long the same call fits, if waiting helps, and QuotaFailure, which names
// the policy.
package grpclimit

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/internal/front"
	"github.com/trypema/trypema/internal/invalid"
)

// Options say what New limits, and how. Limiter and one of Rate and RateOf are required, or Decide; all else has a default. A method is named in
// full, as "/package.Service/Method".
type Options struct {
	// Limiter decides. It may be shared with others: calls with the same key then count together.
	Limiter trypema.Limiter

	// Rate is that of every call.
	Rate trypema.Rate

	// RateOf is the rate of a call, by method or by who calls.
	RateOf func(ctx context.Context, method string) trypema.Rate

	// Decide decides instead of Limiter, on a call with a key and a cost: by a trypema.MultiLimiter, or by policies. Who refused, by
	// Decision.RefusedBy, is named in QuotaFailure.
	Decide func(ctx context.Context, method, key string, cost uint64) (trypema.Decision, error)

	// Key says who shares a limit. Calls for which it finds no key share one. Default ByPeer() on servers; on clients the target of
	// the connection.
	Key KeyFunc

	// Cost is that of a call. Default 1 for each; must be at least 1.
	Cost func(ctx context.Context, method string) uint64

	// Skip names calls that are not limited: health checks, say. Default none.
	Skip func(ctx context.Context, method string) bool

	// Messages has each message of a stream that comes from the client cost as much as a call, besides the call. Where one is denied,
	// the stream ends.
	Messages bool

	// MaxWait is how long a call of a client may wait for its turn. One that would have to wait longer, or beyond the deadline of its
	// context, fails at once. Default 0: none waits. Servers do not wait.
	MaxWait time.Duration

	// Shadow lets every call pass. Decisions are made, counted and seen by Seen.
	Shadow bool

	// Name is the name of the policy, for clients. Default "default".
	Name string

	// Seen is told of each decision. It must not block. Default nil.
	Seen func(ctx context.Context, method string, d trypema.Decision, err error)
}

// Limit is a limit for calls. It is made by New.
type Limit struct{ o Options }

// New returns a Limit, or an error that wraps trypema.ErrInvalidOptions and names the field.
func New(o Options) (*Limit, error) {
	if err := front.Check("grpclimit.Options", o.Limiter, o.Rate, o.RateOf != nil, o.Decide != nil); err != nil {
		return nil, err
	}
	if o.MaxWait < 0 {
		return nil, invalid.Errorf(trypema.ErrInvalidOptions, "grpclimit.Options.MaxWait is %v; it must be at least 0", o.MaxWait)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	return &Limit{o}, nil
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
		k = front.Keyless
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
	d, err := front.Allow(ctx, wait, func() (trypema.Decision, error) { return decide(ctx, method, k, cost) })
	if l.o.Seen != nil {
		l.o.Seen(ctx, method, d, err)
	}
	switch {
	case l.o.Shadow, err == nil && d.Allowed:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case err != nil:
		return status.Error(codes.Unavailable, "the limit of calls can not be judged: "+err.Error())
	}
	return l.denied(d)
}

// denied is the status of a denial.
func (l *Limit) denied(d trypema.Decision) error {
	text := "the quota of calls is used up"
	if d.Outcome == trypema.OutcomeSuppressed {
		text = "a part of the calls is declined for now"
	}
	s := status.New(codes.ResourceExhausted, text)
	failure := &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: cmp.Or(d.RefusedBy, l.o.Name), Description: text}}}
	var detailed *status.Status
	var err error
	if d.RetryAfter == trypema.Never {
		detailed, err = s.WithDetails(failure)
	} else {
		detailed, err = s.WithDetails(failure, &errdetails.RetryInfo{RetryDelay: durationpb.New(d.RetryAfter)})
	}
	if err != nil { // a detail that can not be encoded
		return s.Err()
	}
	return detailed.Err()
}

// UnaryServer is an interceptor for grpc.ChainUnaryInterceptor.
func (l *Limit) UnaryServer() grpc.UnaryServerInterceptor {
	peer := ByPeer()
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := l.admit(ctx, info.FullMethod, peer, 0); err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}
}

// StreamServer is an interceptor for grpc.ChainStreamInterceptor.
func (l *Limit) StreamServer() grpc.StreamServerInterceptor {
	peer := ByPeer()
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if err := l.admit(stream.Context(), info.FullMethod, peer, 0); err != nil {
			return err
		}
		if l.o.Messages && info.IsClientStream {
			stream = &serverStream{stream, func() error { return l.admit(stream.Context(), info.FullMethod, peer, 0) }}
		}
		return handle(server, stream)
	}
}

// serverStream judges each message that it receives.
type serverStream struct {
	grpc.ServerStream
	admit func() error
}

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.admit()
}

// UnaryClient is an interceptor for grpc.WithChainUnaryInterceptor.
func (l *Limit) UnaryClient() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		if err := l.admit(ctx, method, target(conn), l.o.MaxWait); err != nil {
			return err
		}
		return invoke(ctx, method, request, reply, conn, options...)
	}
}

// StreamClient is an interceptor for grpc.WithChainStreamInterceptor.
func (l *Limit) StreamClient() grpc.StreamClientInterceptor {
	return func(ctx context.Context, about *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		if err := l.admit(ctx, method, target(conn), l.o.MaxWait); err != nil {
			return nil, err
		}
		stream, err := open(ctx, about, conn, method, options...)
		if err == nil && l.o.Messages && about.ClientStreams {
			stream = &clientStream{stream, func() error { return l.admit(ctx, method, target(conn), l.o.MaxWait) }}
		}
		return stream, err
	}
}

// clientStream judges each message that it sends.
type clientStream struct {
	grpc.ClientStream
	admit func() error
}

func (s *clientStream) SendMsg(m any) error {
	if err := s.admit(); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}

func target(conn *grpc.ClientConn) KeyFunc {
	return func(context.Context, string) (string, bool) { return conn.Target(), true }
}
