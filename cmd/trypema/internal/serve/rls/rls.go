// Package rls serves the Envoy rate limit service, version 3: by gRPC, with health and reflection, and by
// POST /json.
package rls

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
)

// maxMessage bounds a request.
const maxMessage = 256 << 10

// workers are the goroutines that decide requests, for each processor. A request that finds all of them busy,
// as those that wait for Redis have them, gets a goroutine of its own. A new goroutine costs more than the
// decision: its stack grows several times on the way.
const workers = 8

// Options configure a Service.
type Options struct {
	Engine *engine.Engine
	// Headers has answers carry RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset of the descriptor
	// that is nearest to its limit, for the client of Envoy.
	Headers bool
	// Metadata has answers carry dynamic metadata: the request, and the metadata of the rules that passed.
	Metadata bool
	// Logger is told why requests could not be judged. Default slog.Default().
	Logger *slog.Logger
	// Served is told of each request: how long it took, whether it was over, and what was wrong. Default nil.
	Served func(method string, took time.Duration, over bool, err error)
}

// Service is the rate limit service.
type Service struct {
	pb.UnimplementedRateLimitServiceServer
	Options
	limits atomic.Pointer[limits]
	calls  sync.Pool // of *call
}

// New returns a service.
func New(o Options) *Service {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return &Service{Options: o, calls: sync.Pool{New: func() any { return new(call) }}}
}

// call is the memory of one request, which is used again.
type call struct {
	request engine.Request
	answer  engine.Answer
	entries []rules.Entry
	limits  []engine.Override
}

// limits are the limits of a configuration as answers have them.
type limits struct {
	set *rules.Set
	all map[*rules.Rule]*pb.RateLimitResponse_RateLimit
}

func limitOf(requests uint32, unit rules.Unit, name string) *pb.RateLimitResponse_RateLimit {
	return &pb.RateLimitResponse_RateLimit{
		RequestsPerUnit: requests, Unit: pb.RateLimitResponse_RateLimit_Unit(unit), Name: name,
	}
}

// limitOf returns the limit of a status. Those of the configuration are made once.
func (s *Service) limitOf(of *engine.Status) *pb.RateLimitResponse_RateLimit {
	if of.Override != nil {
		return limitOf(of.Override.Requests, of.Override.Unit, "")
	}
	set := s.Engine.Set()
	known := s.limits.Load()
	if known == nil || known.set != set {
		known = &limits{set: set, all: make(map[*rules.Rule]*pb.RateLimitResponse_RateLimit)}
		for _, r := range set.Rules() {
			known.all[r] = limitOf(r.Requests, r.Unit, r.Name)
		}
		s.limits.Store(known)
	}
	if l := known.all[of.Rule]; l != nil {
		return l
	}
	return limitOf(of.Rule.Requests, of.Rule.Unit, of.Rule.Name) // the configuration has just changed
}

// ShouldRateLimit decides a request. What is wrong with it is InvalidArgument; Unavailable is a store that
// does not answer, or a server without a configuration, and the failure mode of Envoy decides.
func (s *Service) ShouldRateLimit(
	ctx context.Context, r *pb.RateLimitRequest,
) (*pb.RateLimitResponse, error) {
	response, err := s.decide(ctx, r, "ShouldRateLimit")
	if err == nil {
		return response, nil
	}
	text, isClients := engine.Problem(err)
	code := codes.Unavailable
	switch {
	case isClients:
		code = codes.InvalidArgument
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return nil, status.Error(code, text)
}

func (s *Service) decide(
	ctx context.Context, r *pb.RateLimitRequest, method string,
) (*pb.RateLimitResponse, error) {
	var began time.Time
	if s.Served != nil {
		began = time.Now()
	}
	c, _ := s.calls.Get().(*call)
	defer s.calls.Put(c)
	c.read(r)
	err := s.Engine.Decide(ctx, &c.request, &c.answer)
	if s.Served != nil {
		s.Served(method, time.Since(began), err == nil && c.answer.Over, err)
	}
	if err != nil {
		if _, isClients := engine.Problem(err); !isClients && ctx.Err() == nil {
			s.Logger.Warn("rls: a request could not be judged", "err", err)
		}
		return nil, err
	}
	return s.response(r, &c.answer), nil
}

// read makes the request of the engine.
func (c *call) read(r *pb.RateLimitRequest) {
	c.request.Domain, c.request.Hits = r.Domain, r.HitsAddend
	c.request.Descriptors = c.request.Descriptors[:0]
	c.entries, c.limits = c.entries[:0], c.limits[:0]
	many := 0
	for _, d := range r.Descriptors {
		many += len(d.GetEntries())
	}
	if cap(c.entries) < many { // so that what descriptors have of it stays in place
		c.entries = make([]rules.Entry, 0, many)
	}
	if cap(c.limits) < len(r.Descriptors) {
		c.limits = make([]engine.Override, 0, len(r.Descriptors))
	}
	for _, d := range r.Descriptors {
		from := len(c.entries)
		for _, e := range d.GetEntries() {
			c.entries = append(c.entries, rules.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
		one := engine.Descriptor{Entries: c.entries[from:], GivesBack: d.GetIsNegativeHits()}
		if h := d.GetHitsAddend(); h != nil {
			one.Hits, one.HasHits = h.GetValue(), true
		}
		if l := d.GetLimit(); l != nil {
			unit := rules.Unknown
			if l.GetUnit() >= 0 && l.GetUnit() <= math.MaxUint8 {
				unit = rules.Unit(l.GetUnit()) //nolint:gosec // it was checked
			}
			c.limits = append(c.limits, engine.Override{Requests: l.GetRequestsPerUnit(), Unit: unit})
			one.Limit = &c.limits[len(c.limits)-1]
		}
		c.request.Descriptors = append(c.request.Descriptors, one)
	}
}

// single is the response to a request with one descriptor, as most have, in one piece of memory.
type single struct {
	response pb.RateLimitResponse
	statuses [1]*pb.RateLimitResponse_DescriptorStatus
	status   pb.RateLimitResponse_DescriptorStatus
	reset    durationpb.Duration
}

func (s *Service) response(r *pb.RateLimitRequest, a *engine.Answer) *pb.RateLimitResponse {
	var response *pb.RateLimitResponse
	if len(a.Statuses) == 1 {
		one := new(single)
		one.statuses[0] = &one.status
		response = &one.response
		response.Statuses = one.statuses[:]
		s.tell(&one.status, &one.reset, &a.Statuses[0])
	} else {
		response = &pb.RateLimitResponse{Statuses: make([]*pb.RateLimitResponse_DescriptorStatus, len(a.Statuses))}
		for i := range a.Statuses {
			response.Statuses[i] = new(pb.RateLimitResponse_DescriptorStatus)
			s.tell(response.Statuses[i], new(durationpb.Duration), &a.Statuses[i])
		}
	}
	response.OverallCode = pb.RateLimitResponse_OK
	if a.Over {
		response.OverallCode = pb.RateLimitResponse_OVER_LIMIT
	}
	if s.Headers {
		response.ResponseHeadersToAdd = headers(response.Statuses)
	}
	if s.Metadata {
		response.DynamicMetadata = metadata(r, a)
	}
	return response
}

// tell makes what Envoy is told of one descriptor.
func (s *Service) tell(
	to *pb.RateLimitResponse_DescriptorStatus, reset *durationpb.Duration, of *engine.Status,
) {
	to.Code = pb.RateLimitResponse_OK
	switch {
	case !of.Applies:
		return
	case of.Rule != nil && of.Rule.Unlimited:
		to.LimitRemaining = math.MaxUint32
		return
	case of.Over:
		to.Code = pb.RateLimitResponse_OVER_LIMIT
	}
	to.CurrentLimit = s.limitOf(of)
	to.LimitRemaining = of.Remaining
	if of.Reset != engine.NoReset {
		reset.Seconds = int64(of.Reset / time.Second)
		reset.Nanos = int32(of.Reset % time.Second) //nolint:gosec // it is below a second
		to.DurationUntilReset = reset
	}
}

// headers are those of the descriptor that is over, or nearest to its limit.
func headers(all []*pb.RateLimitResponse_DescriptorStatus) []*core.HeaderValue {
	var nearest *pb.RateLimitResponse_DescriptorStatus
	isNearer := func(s *pb.RateLimitResponse_DescriptorStatus) bool {
		over, was := s.Code == pb.RateLimitResponse_OVER_LIMIT, nearest.GetCode() == pb.RateLimitResponse_OVER_LIMIT
		switch {
		case nearest == nil:
			return true
		case over != was:
			return over
		case over: // the one that takes longest
			return s.DurationUntilReset.AsDuration() > nearest.DurationUntilReset.AsDuration()
		}
		return s.LimitRemaining < nearest.LimitRemaining
	}
	for _, s := range all {
		if s.CurrentLimit != nil && isNearer(s) {
			nearest = s
		}
	}
	if nearest == nil {
		return nil
	}
	reset := nearest.DurationUntilReset
	seconds := reset.GetSeconds()
	if reset.GetNanos() > 0 {
		seconds++
	}
	list := []*core.HeaderValue{
		{Key: "RateLimit-Limit", Value: strconv.FormatUint(uint64(nearest.CurrentLimit.RequestsPerUnit), 10)},
		{Key: "RateLimit-Remaining", Value: strconv.FormatUint(uint64(nearest.LimitRemaining), 10)},
	}
	if reset != nil {
		list = append(list, &core.HeaderValue{Key: "RateLimit-Reset", Value: strconv.FormatInt(seconds, 10)})
	}
	return list
}

// metadata is the request, and the metadata of the rules whose descriptors are not over.
func metadata(r *pb.RateLimitRequest, a *engine.Answer) *structpb.Struct {
	list := make([]any, 0, len(r.Descriptors))
	for _, d := range r.Descriptors {
		list = append(list, describe(d))
	}
	all := map[string]any{"domain": r.Domain, "descriptors": list}
	if r.HitsAddend != 0 {
		all["hitsAddend"] = float64(r.HitsAddend)
	}
	of := make(map[string]any)
	for i := range a.Statuses {
		if s := &a.Statuses[i]; !s.Over && s.Applies && s.Rule != nil && !s.Rule.Unlimited {
			merge(of, s.Rule.Metadata)
		}
	}
	if len(of) > 0 {
		all["metadata"] = of
	}
	m, err := structpb.NewStruct(all)
	if err != nil { // a value of a request that is not UTF-8, which a protobuf cannot carry
		return nil
	}
	return m
}

func describe(d *ratelimit.RateLimitDescriptor) map[string]any {
	entries := make([]any, 0, len(d.GetEntries()))
	for _, e := range d.GetEntries() {
		entries = append(entries, e.GetKey()+"="+e.GetValue())
	}
	fields := map[string]any{"entries": entries}
	if l := d.GetLimit(); l != nil {
		fields["limit"] = l.String()
	}
	if h := d.GetHitsAddend(); h != nil {
		fields["hitsAddend"] = float64(h.GetValue())
	}
	return fields
}

// merge adds what is in from to what is in to. What is there already stays; mappings are merged.
func merge(to, from map[string]any) {
	for k, v := range from {
		m, isMap := v.(map[string]any)
		switch old, ok := to[k]; {
		case !ok && isMap:
			to[k] = make(map[string]any, len(m))
			merge(to[k].(map[string]any), m)
		case !ok:
			to[k] = v
		case isMap:
			if old, ok := old.(map[string]any); ok {
				merge(old, m)
			}
		}
	}
}

// ServeHTTP answers POST /json: the JSON of a RateLimitRequest with that of a RateLimitResponse. The status
// is 200, or 429 for one that is over; 400 for a request that is wrong; 503 for one that could not be judged.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		code := http.StatusBadRequest
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), code)
		return
	}
	request := new(pb.RateLimitRequest)
	if err := protojson.Unmarshal(body, request); err != nil {
		http.Error(w, fmt.Sprintf("the body is no RateLimitRequest: %v", err), http.StatusBadRequest)
		return
	}
	response, err := s.decide(r.Context(), request, "json")
	if err != nil {
		text, isClients := engine.Problem(err)
		code := http.StatusServiceUnavailable
		if isClients {
			code = http.StatusBadRequest
		}
		http.Error(w, text, code)
		return
	}
	data, err := protojson.Marshal(response)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if response.OverallCode == pb.RateLimitResponse_OVER_LIMIT {
		w.WriteHeader(http.StatusTooManyRequests)
	}
	_, _ = w.Write(data) // to a client that has gone, perhaps
}

// ServiceName is what grpc.health.v1 knows the service by, beside "" and its full name.
const ServiceName = "ratelimit"

// Server is a gRPC server of the service with health and reflection.
type Server struct {
	*grpc.Server
	health *health.Server
}

// NewServer returns a gRPC server that is not healthy until SetServing. A connection lives for maxAge, so
// that clients spread over new servers; its calls may then take another hour.
func NewServer(s *Service, maxAge time.Duration, more ...grpc.ServerOption) *Server {
	options := append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1000),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxAge, MaxConnectionAgeGrace: time.Hour,
			Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true},
		),
		grpc.NumStreamWorkers(uint32(workers * runtime.GOMAXPROCS(0))), //nolint:gosec // it is a small number
		grpc.UnaryInterceptor(s.recovered),
	}, more...)
	server := &Server{grpc.NewServer(options...), health.NewServer()}
	pb.RegisterRateLimitServiceServer(server, s)
	healthpb.RegisterHealthServer(server, server.health)
	reflection.Register(server)
	server.SetServing(false)
	return server
}

// recovered turns a panic, which is a fault of ours, into an error of its call.
func (s *Service) recovered(
	ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (answer any, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.Logger.Error("rls: a request caused a panic", "panic", v, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the request caused a fault of the server")
		}
	}()
	return handle(ctx, r)
}

// SetServing has health say whether requests should come here.
func (s *Server) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range []string{"", ServiceName, pb.RateLimitService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, state)
	}
}
