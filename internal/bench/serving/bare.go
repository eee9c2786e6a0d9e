package serving

import (
	"context"
	"net"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/trypema/trypema/internal/cli/screen"
)

// Bare is the flags of bench bare-server, the server that trypema serve is measured by.
type Bare struct {
	Address string `arg:""`
}

// Run serves until the context ends.
func (b *Bare) Run(ctx context.Context, _ screen.Streams) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", b.Address)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterRateLimitServiceServer(s, bare{})
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(l)
}

type bare struct {
	pb.UnimplementedRateLimitServiceServer
}

// ShouldRateLimit answers OK.
func (bare) ShouldRateLimit(context.Context, *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	return &pb.RateLimitResponse{
		OverallCode: pb.RateLimitResponse_OK,
		Statuses:    []*pb.RateLimitResponse_DescriptorStatus{{Code: pb.RateLimitResponse_OK}},
	}, nil
}
