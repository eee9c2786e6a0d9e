package grpclimit

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// UnaryClient is an interceptor for grpc.WithChainUnaryInterceptor.
func (l *Limit) UnaryClient() grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
		options ...grpc.CallOption,
	) error {
		ctx, err := l.admit(call{ctx, method, target(conn)}, l.o.MaxWait)
		if err != nil {
			return err
		}
		return invoke(ctx, method, request, reply, conn, options...)
	}
}

// StreamClient is an interceptor for grpc.WithChainStreamInterceptor.
func (l *Limit) StreamClient() grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, about *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
		options ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		ctx, err := l.admit(call{ctx, method, target(conn)}, l.o.MaxWait)
		if err != nil {
			return nil, err
		}
		if !l.o.Messages || !about.ClientStreams {
			return open(ctx, about, conn, method, options...)
		}
		ctx, cancel := context.WithCancel(ctx)
		stream, err := open(ctx, about, conn, method, options...)
		if err != nil {
			cancel()
			return nil, err
		}
		s := &clientStream{ClientStream: stream, cancel: cancel, oneReply: !about.ServerStreams}
		s.admit = func() error {
			_, err := l.admit(call{ctx, method, target(conn)}, l.o.MaxWait)
			return err
		}
		return s, nil
	}
}

// clientStream judges each message that it sends. The end of its context is what tells gRPC, and by it the
// server, that a stream is given up; so it is ended as soon as the stream is over, for whatever reason, and
// nothing of a stream that is dropped then stays.
type clientStream struct {
	grpc.ClientStream
	cancel   context.CancelFunc
	oneReply bool
	admit    func() error
	denial   refusal
	over     atomic.Bool // its status was received, or an error
}

// end gives up what belongs to the stream. What gRPC says of a stream that was denied is the denial.
func (s *clientStream) end(err error) error {
	s.over.Store(true)
	s.cancel()
	if denial := s.denial.get(); denial != nil && status.Code(err) == codes.Canceled {
		return denial
	}
	return err
}

func (s *clientStream) SendMsg(m any) error {
	if err := s.denial.get(); err != nil {
		return err
	}
	if !s.over.Load() {
		if err := s.admit(); err != nil {
			if s.over.Load() { // meanwhile; RecvMsg has its status
				return io.EOF
			}
			s.denial.Store(&err)
			return s.end(err)
		}
	}
	err := s.ClientStream.SendMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		return s.end(err)
	}
	return err
}

// CloseSend does nothing once a message was denied: the server would take the stream for complete.
func (s *clientStream) CloseSend() error {
	if s.denial.get() != nil {
		return nil
	}
	return s.ClientStream.CloseSend()
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.oneReply {
		return s.end(err)
	}
	return nil
}

func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err != nil {
		err = s.end(err)
	}
	return md, err
}

func target(conn *grpc.ClientConn) KeyFunc {
	return func(context.Context, string) (string, bool) { return conn.Target(), true }
}
