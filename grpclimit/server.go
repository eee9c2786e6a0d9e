package grpclimit

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UnaryServer is an interceptor for grpc.ChainUnaryInterceptor.
func (l *Limit) UnaryServer() grpc.UnaryServerInterceptor {
	peer := ByPeer()
	return func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
	) (any, error) {
		ctx, err := l.serve(call{ctx, info.FullMethod, peer})
		if err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}
}

// StreamServer is an interceptor for grpc.ChainStreamInterceptor.
func (l *Limit) StreamServer() grpc.StreamServerInterceptor {
	peer := ByPeer()
	return func(
		server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler,
	) error {
		ctx, err := l.serve(call{stream.Context(), info.FullMethod, peer})
		if err != nil {
			return err
		}
		if !l.o.Messages || !info.IsClientStream {
			return handle(server, &decidedStream{stream, ctx})
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s := &serverStream{ServerStream: stream, ctx: ctx, cancel: cancel}
		s.admit = func() error {
			_, err := l.serve(call{ctx, info.FullMethod, peer})
			return err
		}
		return s.status(handle(server, s))
	}
}

// decidedStream is a stream whose context carries the decision.
type decidedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *decidedStream) Context() context.Context { return s.ctx }

// serverStream judges each message that it receives. Once one is denied the stream is over, whatever the
// handler makes of that.
type serverStream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelFunc
	admit  func() error
	denial refusal
}

// refusal is why a stream has ended, if it was one of ours.
type refusal struct{ atomic.Pointer[error] }

func (r *refusal) get() error {
	if err := r.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) RecvMsg(m any) error {
	if err := s.denial.get(); err != nil {
		return err
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	err := s.admit()
	if err != nil {
		s.denial.Store(&err)
		s.cancel()
	}
	return err
}

// status is how the call ends once the handler has returned an error, or nil. Of a stream that was denied it
// is the denial, unless the handler has something else to say than that its context has ended.
func (s *serverStream) status(err error) error {
	ended := err == nil || errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
	if denial := s.denial.get(); denial != nil && ended {
		return denial
	}
	return err
}
