package grpclimit_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
	"github.com/trypema/trypema/internal/proof/must"
)

// This file has every way in which a stream is given up. In each of them both ends see the end, and no
// goroutine stays for a stream that its caller has dropped, though the connection and the caller's context
// live on.

var (
	both = grpc.StreamDesc{StreamName: "Both", ClientStreams: true, ServerStreams: true}
	up   = grpc.StreamDesc{StreamName: "Up", ClientStreams: true}
)

// streams is a server with a handler for each stream, and a connection to it.
type streams struct {
	*testing.T
	conn *grpc.ClientConn
}

func newStreams(t *testing.T, server, client *grpclimit.Limit, handle func(grpc.ServerStream) error) *streams {
	t.Helper()
	desc := grpc.ServiceDesc{ServiceName: "test.Streams", HandlerType: (*any)(nil)}
	for _, s := range []grpc.StreamDesc{both, up} {
		s.Handler = func(_ any, stream grpc.ServerStream) error { return handle(stream) }
		desc.Streams = append(desc.Streams, s)
	}
	return &streams{t, serve(t, server, client, func(s *grpc.Server) { s.RegisterService(&desc, struct{}{}) })}
}

func (s *streams) open(ctx context.Context, desc grpc.StreamDesc) grpc.ClientStream {
	s.Helper()
	stream, err := s.conn.NewStream(ctx, &desc, "/test.Streams/"+desc.StreamName)
	if err != nil {
		s.Fatal(err)
	}
	return stream
}

// dropped waits until nothing runs for the client's streams any more.
func (s *streams) dropped() {
	s.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		stack := make([]byte, 1<<20)
		stack = stack[:runtime.Stack(stack, true)]
		n := strings.Count(string(stack), "grpc.newClientStreamWithParams")
		if n == 0 {
			return
		}
		if time.Since(began) > 30*time.Second {
			s.Fatalf("%d goroutines of streams stay\n%s", n, stack)
		}
	}
}

var message = new(emptypb.Empty)

func receive(s interface{ RecvMsg(any) error }) error { return s.RecvMsg(new(emptypb.Empty)) }

// sendUntil sends messages until one is refused, and returns how many were sent.
func sendUntil(s grpc.ClientStream) (n int, err error) {
	for ; err == nil; n++ {
		err = s.SendMsg(message)
	}
	return n - 1, err
}

// drain receives until the stream ends, and tells how.
func drain(ended chan<- error) func(grpc.ServerStream) error {
	return func(s grpc.ServerStream) error {
		for {
			if err := receive(s); err != nil {
				ended <- err
				return err
			}
		}
	}
}

func perMinute(t *testing.T, n float64, more func(*grpclimit.Options)) *grpclimit.Limit {
	t.Helper()
	o := grpclimit.Options{Limiter: limiter(t), Rate: trypema.PerMinute(n), Messages: true}
	if more != nil {
		more(&o)
	}
	return limit(t, o)
}

// A message that is denied on a client ends the stream: the server sees that, and nothing stays in the
// client's process.
func TestDeniedSendEndsTheStream(t *testing.T) {
	for _, desc := range []grpc.StreamDesc{both, up} {
		for name, then := range map[string]func(*testing.T, grpc.ClientStream){
			"and is dropped": func(*testing.T, grpc.ClientStream) {},
			"and is sent to again": func(t *testing.T, s grpc.ClientStream) {
				for range 2 {
					denial(t, s.SendMsg(message))
				}
			},
			"and is received from": func(t *testing.T, s grpc.ClientStream) { denial(t, receive(s)) },
			"and is closed": func(t *testing.T, s grpc.ClientStream) {
				must.Report(t, s.CloseSend())
				denial(t, receive(s))
			},
		} {
			t.Run(desc.StreamName+" "+name, func(t *testing.T) {
				ended := make(chan error, 1)
				s := newStreams(t, nil, perMinute(t, 3, nil), drain(ended))
				stream := s.open(context.Background(), desc)
				n, err := sendUntil(stream)
				if denial(t, err); n != 2 {
					t.Errorf("%d messages were sent, want 2, and the call", n)
				}
				then(t, stream)
				if err := <-ended; status.Code(err) != codes.Canceled {
					t.Errorf("the server saw %v", err)
				}
				s.dropped()
			})
		}
	}
}

// Who receives on another goroutine hears of the denial, too.
func TestDeniedSendWakesWhoReceives(t *testing.T) {
	ended := make(chan error, 1)
	s := newStreams(t, nil, perMinute(t, 2, nil), drain(ended))
	stream := s.open(context.Background(), both)
	received := make(chan error, 1)
	go func() { received <- receive(stream) }()
	_, err := sendUntil(stream)
	denial(t, err)
	denial(t, <-received)
	if <-ended == nil {
		t.Error("the server saw no end")
	}
	s.dropped()
}

// Streams that end otherwise leave nothing behind, either, and what the server says is what the client hears.
func TestStreamsThatEnd(t *testing.T) {
	own := status.Error(codes.DataLoss, "own")
	ends := func(err error) func(grpc.ServerStream) error { return func(grpc.ServerStream) error { return err } }
	replies := func(s grpc.ServerStream) error {
		for {
			if err := receive(s); err != nil {
				return errors.Join(s.SendMsg(message))
			}
		}
	}
	for _, tt := range []struct {
		name   string
		desc   grpc.StreamDesc
		handle func(grpc.ServerStream) error
		use    func(*testing.T, grpc.ClientStream)
	}{
		{"the server returns nil", both, ends(nil), func(t *testing.T, s grpc.ClientStream) {
			if err := receive(s); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if err := s.SendMsg(message); !errors.Is(err, io.EOF) {
				t.Errorf("SendMsg afterwards: %v", err)
			}
		}},
		{"the server returns an error", both, ends(own), func(t *testing.T, s grpc.ClientStream) {
			if err := receive(s); status.Code(err) != codes.DataLoss {
				t.Error(err)
			}
		}},
		{"there is one reply", up, replies, func(t *testing.T, s grpc.ClientStream) {
			must.Report(t, errors.Join(s.SendMsg(message), s.CloseSend(), receive(s)))
		}},
		{"there are replies", both, replies, func(t *testing.T, s grpc.ClientStream) {
			must.Report(t, errors.Join(s.SendMsg(message), s.CloseSend(), receive(s)))
			if err := receive(s); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}},
		{"a message cannot be encoded", both, drain(make(chan error, 1)), func(t *testing.T, s grpc.ClientStream) {
			if err := s.SendMsg("no message"); status.Code(err) != codes.Internal {
				t.Error(err)
			}
		}},
		{"a reply cannot be decoded", both, replies, func(t *testing.T, s grpc.ClientStream) {
			if err := errors.Join(s.CloseSend(), s.RecvMsg("no message")); status.Code(err) != codes.Internal {
				t.Error(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStreams(t, nil, perMinute(t, 100, nil), tt.handle)
			tt.use(t, s.open(context.Background(), tt.desc))
			s.dropped()
		})
	}
	t.Run("the caller's context ends", func(t *testing.T) {
		ended := make(chan error, 1)
		s := newStreams(t, nil, perMinute(t, 100, nil), drain(ended))
		ctx, cancel := context.WithCancel(context.Background())
		stream := s.open(ctx, both)
		must.Report(t, stream.SendMsg(message))
		cancel()
		if err := receive(stream); status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		if <-ended == nil {
			t.Error("the server saw no end")
		}
		s.dropped()
	})
	t.Run("it is never opened", func(t *testing.T) {
		s := newStreams(t, nil, perMinute(t, 100, nil), drain(nil))
		_ = s.conn.Close()
		_, err := s.conn.NewStream(context.Background(), &both, "/test.Streams/Both")
		if status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		s.dropped()
	})
	t.Run("the headers do not come", func(t *testing.T) {
		s := newStreams(t, nil, perMinute(t, 100, nil), func(s grpc.ServerStream) error {
			<-s.Context().Done()
			return nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		stream := s.open(ctx, both)
		time.AfterFunc(10*time.Millisecond, cancel)
		if md, err := stream.Header(); len(md) > 0 || err != nil && status.Code(err) != codes.Canceled {
			t.Error(md, err)
		}
		s.dropped()
	})
}

// A client that waits for its turn to send stops when the stream ends: at once, not after MaxWait.
func TestWaitingToSendEndsWithTheStream(t *testing.T) {
	patient := func(o *grpclimit.Options) {
		o.Rate, o.MaxWait = trypema.PerMinute(2), time.Hour
		o.Seen = nil
	}
	t.Run("because the server ends it", func(t *testing.T) {
		goOn := make(chan struct{})
		s := newStreams(t, nil, perMinute(t, 2, patient), func(grpc.ServerStream) error {
			<-goOn
			return status.Error(codes.DataLoss, "own")
		})
		stream := s.open(context.Background(), both)
		sent := make(chan error, 1)
		go func() {
			_, err := sendUntil(stream)
			sent <- err
		}()
		close(goOn)
		if err := receive(stream); status.Code(err) != codes.DataLoss {
			t.Error(err)
		}
		if err := <-sent; !errors.Is(err, io.EOF) {
			t.Errorf("SendMsg: %v, want EOF: the status is for RecvMsg", err)
		}
		s.dropped()
	})
	t.Run("because the caller's context ends", func(t *testing.T) {
		ended := make(chan error, 1)
		s := newStreams(t, nil, perMinute(t, 2, patient), drain(ended))
		ctx, cancel := context.WithCancel(context.Background())
		stream := s.open(ctx, both)
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := sendUntil(stream); status.Code(err) != codes.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("SendMsg: %v", err)
		}
		if <-ended == nil {
			t.Error("the server saw no end")
		}
		s.dropped()
	})
}

// A message that is denied on a server is the end of the stream, whatever the handler makes of it.
func TestDeniedReceiveEndsTheStream(t *testing.T) {
	for name, tt := range map[string]struct {
		handle func(*testing.T, grpc.ServerStream) error
		code   codes.Code
	}{
		"which the handler returns": {func(_ *testing.T, s grpc.ServerStream) error {
			return drain(make(chan error, 1))(s)
		}, codes.ResourceExhausted},
		"which the handler wraps": {func(_ *testing.T, s grpc.ServerStream) error {
			return errors.Join(drain(make(chan error, 1))(s))
		}, codes.ResourceExhausted},
		"which the handler takes for the end": {func(_ *testing.T, s grpc.ServerStream) error {
			_ = drain(make(chan error, 1))(s)
			return nil
		}, codes.ResourceExhausted},
		"after which the handler goes on": {func(t *testing.T, s grpc.ServerStream) error {
			received := 0
			for failed := 0; failed < 5; {
				if err := receive(s); err != nil {
					failed++
					continue
				}
				received++
			}
			if received != 2 {
				t.Errorf("%d were received, want 2, and the call", received)
			}
			return nil
		}, codes.ResourceExhausted},
		"of which only a goroutine of the handler knows": {func(_ *testing.T, s grpc.ServerStream) error {
			var receiving sync.WaitGroup
			receiving.Go(func() { _ = drain(make(chan error, 1))(s) })
			<-s.Context().Done()
			receiving.Wait()
			return s.Context().Err()
		}, codes.ResourceExhausted},
		"to which the handler has something to say": {func(_ *testing.T, s grpc.ServerStream) error {
			_ = drain(make(chan error, 1))(s)
			return status.Error(codes.DataLoss, "own")
		}, codes.DataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStreams(t, perMinute(t, 3, nil), nil, func(s grpc.ServerStream) error { return tt.handle(t, s) })
			stream := s.open(context.Background(), both)
			for range 10 {
				if stream.SendMsg(message) != nil {
					break
				}
			}
			if err := receive(stream); status.Code(err) != tt.code {
				t.Errorf("the client hears %v, want %v", err, tt.code)
			}
			s.dropped()
		})
	}
}
