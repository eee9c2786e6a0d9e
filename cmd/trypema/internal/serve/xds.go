package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	config "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
)

// configType is the type of the resources that are taken.
const configType = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

// The pauses before a management server that has gone is asked again. They double, and are shortened by
// chance so that not all servers come at once.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
)

// subscribe takes configurations from an xDS management server until the context ends: all of them with each
// answer (state of the world), by the aggregated discovery service.
func (s *server) subscribe(ctx context.Context) {
	c, err := grpc.NewClient(s.command.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(rules.MaxSize)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}))
	if err != nil {
		s.logger.Error("xds: the management server cannot be asked", "address", s.command.XDS, "err", err)
		return
	}
	defer c.Close() //nolint:errcheck // nothing is left to do
	client := discovery.NewAggregatedDiscoveryServiceClient(c)
	version := "" // what is in use
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := s.follow(ctx, client, &version)
		if ctx.Err() != nil {
			return
		}
		s.logger.Warn("xds: the stream has ended; the configuration stays as it is", "address", s.command.XDS,
			"err", err)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // no secret
		}
	}
}

// follow takes configurations from one stream until it ends.
func (s *server) follow(
	ctx context.Context, client discovery.AggregatedDiscoveryServiceClient, version *string,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	ask := &discovery.DiscoveryRequest{Node: &core.Node{Id: s.command.Node}, TypeUrl: configType}
	for {
		ask.VersionInfo = *version
		if err := stream.Send(ask); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		ask.ResponseNonce, ask.ErrorDetail = answer.Nonce, nil
		if err := s.loader.use(filesOf(answer)); err != nil {
			ask.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
			continue
		}
		*version = answer.VersionInfo
	}
}

// filesOf returns the resources of an answer as files, by the JSON that their messages have.
func filesOf(answer *discovery.DiscoveryResponse) ([]rules.File, error) {
	var files []rules.File
	for i, r := range answer.Resources {
		one := new(config.RateLimitConfig)
		if err := r.UnmarshalTo(one); err != nil {
			return nil, fmt.Errorf("xds: resource %d: %w", i+1, err)
		}
		name := cmp.Or(one.Name, fmt.Sprintf("resource %d", i+1))
		one.Name = "" // which files do not have
		data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one)
		if err != nil {
			return nil, fmt.Errorf("xds: %s: %w", name, err)
		}
		files = append(files, rules.File{Name: "xds:" + name, Data: data})
	}
	if len(files) == 0 {
		return nil, errors.New("xds: the answer has no resources")
	}
	return files, nil
}
