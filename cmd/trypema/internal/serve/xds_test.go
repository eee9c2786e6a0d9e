package serve

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	config "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/trypema/trypema/internal/proof/must"
)

// manager is an xDS management server: what it is told to say is sent, and what comes back is kept.
type manager struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	say   chan *discovery.DiscoveryResponse
	heard chan *discovery.DiscoveryRequest
}

func (m *manager) StreamAggregatedResources(
	s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return nil
		}
		m.heard <- r
		select {
		case answer := <-m.say:
			if answer == nil {
				return nil // it has gone
			}
			if err := s.Send(answer); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (m *manager) send(t *testing.T, version string, resources ...string) {
	t.Helper()
	answer := &discovery.DiscoveryResponse{VersionInfo: version, Nonce: "n" + version, TypeUrl: configType}
	for _, text := range resources {
		one := new(config.RateLimitConfig)
		must.OK(t, protojson.Unmarshal([]byte(text), one))
		r, err := anypb.New(one)
		must.OK(t, err)
		answer.Resources = append(answer.Resources, r)
	}
	m.say <- answer
}

// TestXDS: configurations come from a management server; one that is wrong is refused, and the old one stays,
// also while the management server is gone.
func TestXDS(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	must.OK(t, err)
	m := &manager{
		say:   make(chan *discovery.DiscoveryResponse),
		heard: make(chan *discovery.DiscoveryRequest, 100),
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, m)
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})

	p := start(t, "--xds", l.Addr().String(), "--node", "me")
	if r := <-m.heard; r.Node.Id != "me" || r.TypeUrl != configType || r.VersionInfo != "" {
		t.Errorf("the first request: %v", r)
	}
	if code, body := p.get("admin", "/readyz"); code != 503 ||
		body != "no rate limit configuration loaded\n" {
		t.Errorf("before the first configuration: %d %s", code, body)
	}
	m.send(
		t,
		"1",
		`{"name":"a","domain":"d","descriptors":[{"key":"k","value":"v*","shadow_mode":true,"rate_limit":{"unit":"MINUTE","requests_per_unit":3,"name":"n"}}]}`,
		`{"name":"b","domain":"e","descriptors":[{"key":"k","rate_limit":{"unlimited":true}}]}`,
	)
	if r := <-m.heard; r.VersionInfo != "1" || r.ResponseNonce != "n1" || r.ErrorDetail != nil {
		t.Errorf("the answer to the first: %v", r)
	}
	const want = "d.k_v*: 3 per minute, shadow_mode, name \"n\"\ne.k: unlimited\n"
	if _, body := p.get("admin", "/rlconfig"); !strings.HasSuffix(body, want) {
		t.Errorf("/rlconfig: %s", body)
	}
	m.send(t, "2", `{"name":"a","domain":"d","descriptors":[{"value":"v"}]}`)
	if r := <-m.heard; r.VersionInfo != "1" || r.ResponseNonce != "n2" ||
		!strings.Contains(r.ErrorDetail.GetMessage(), "descriptor 1 of d: key is missing or empty") {
		t.Errorf("the answer to a wrong one: %v", r)
	}
	m.say <- nil
	if r := <-m.heard; r.VersionInfo != "1" || r.ResponseNonce != "" || r.Node.Id != "me" {
		t.Errorf("after the stream has ended: %v", r)
	}
	if code, _ := p.get("admin", "/readyz"); code != 200 {
		t.Errorf("without a management server it is not ready: %d", code)
	}
	m.send(
		t,
		"3",
		`{"name":"a","domain":"d","descriptors":[{"key":"new","rate_limit":{"unit":"DAY","requests_per_unit":1}}]}`,
	)
	<-m.heard
	if _, body := p.get("admin", "/rlconfig"); !strings.HasSuffix(body, "d.new: 1 per day\n") ||
		strings.Contains(body, "refused") {
		t.Errorf("/rlconfig: %s", body)
	}
}
