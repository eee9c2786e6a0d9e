package grpclimit_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/grpclimit"
)

func newLimit(o grpclimit.Options) (limit *grpclimit.Limit, end func()) {
	limits, err := trypema.NewLocal(trypema.Options{Window: time.Minute})
	if err != nil {
		panic(err)
	}
	o.Limiter, o.Rate = limits.Absolute(), trypema.PerMinute(100)
	limit, err = grpclimit.New(o)
	if err != nil {
		panic(err)
	}
	return limit, func() { _ = limits.Close() }
}

func ExampleNew() {
	limits, _ := trypema.NewLocal(trypema.Options{Window: time.Minute})
	defer limits.Close()
	perToken, err := limits.Bind(trypema.StrategyAbsolute, trypema.AtMost(100, time.Minute))
	if err != nil {
		panic(err)
	}
	limit, err := grpclimit.New(grpclimit.Options{Bound: perToken, Key: grpclimit.ByMetadata("authorization")})
	if err != nil {
		panic(err)
	}
	grpc.NewServer(
		grpc.ChainUnaryInterceptor(limit.UnaryServer()),
		grpc.ChainStreamInterceptor(limit.StreamServer()),
	)
	_, err = grpclimit.New(grpclimit.Options{Limiter: limits.Absolute()})
	fmt.Println(err)
	// Output: trypema: grpclimit.Options.Rate is 0 and RateOf is nil; one of them must be set
}

func ExampleLimit_UnaryServer() {
	limit, end := newLimit(grpclimit.Options{})
	defer end()
	grpc.NewServer(grpc.ChainUnaryInterceptor(limit.UnaryServer()))
}

// Each message costs, too.
func ExampleLimit_StreamServer() {
	limit, end := newLimit(grpclimit.Options{Messages: true})
	defer end()
	grpc.NewServer(grpc.ChainStreamInterceptor(limit.StreamServer()))
}

// A client waits for its turn, ten seconds at most.
func ExampleLimit_UnaryClient() {
	limit, end := newLimit(grpclimit.Options{MaxWait: 10 * time.Second})
	defer end()
	_ = grpc.WithChainUnaryInterceptor(limit.UnaryClient()) // for grpc.NewClient
}

func ExampleLimit_StreamClient() {
	limit, end := newLimit(grpclimit.Options{MaxWait: 10 * time.Second})
	defer end()
	_ = grpc.WithChainStreamInterceptor(limit.StreamClient()) // for grpc.NewClient
}

func from(ip string) context.Context {
	return peer.NewContext(context.Background(),
		&peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}})
}

func ExampleByPeer() {
	fmt.Println(grpclimit.ByPeer()(from("2001:db8:1:2:3::4"), "/pkg.Service/Method"))
	// Output: 2001:db8:1:2::/64 true
}

// A customer has an IPv6 network of 56 bits.
func ExampleByPeerNetwork() {
	key, err := grpclimit.ByPeerNetwork(56)
	if err != nil {
		panic(err)
	}
	fmt.Println(key(from("2001:db8:1:2ff:3::4"), "/pkg.Service/Method"))
	// Output: 2001:db8:1:200::/56 true
}

// Machines of one's own are not limited.
func ExampleSkipNetworks() {
	skip, err := grpclimit.SkipNetworks("10.0.0.0/8")
	if err != nil {
		panic(err)
	}
	fmt.Println(skip(from("10.1.2.3"), "/pkg.Service/Method"), skip(from("192.0.2.7"), "/pkg.Service/Method"))
	// Output: true false
}

// An administrator asks by which key a client is limited.
func ExampleLimit_KeyOf() {
	limit, end := newLimit(grpclimit.Options{})
	defer end()
	fmt.Println(limit.KeyOf(from("2001:db8:1:2:3::4"), "/pkg.Service/Method"))
	// Output: 2001:db8:1:2::/64 true
}

func ExampleByMethod() {
	fmt.Println(grpclimit.ByMethod()(from("192.0.2.7"), "/pkg.Service/Method"))
	// Output: /pkg.Service/Method true
}

func ExampleByMetadata() {
	fmt.Println(grpclimit.ByMetadata("authorization")(from("192.0.2.7"), "/pkg.Service/Method")) // there is none
	// Output:  false
}

func ExampleCombine() {
	key := grpclimit.Combine(grpclimit.ByPeer(), grpclimit.ByMethod())
	fmt.Println(key(from("192.0.2.7"), "/pkg.Service/Method"))
	// Output: 9:192.0.2.719:/pkg.Service/Method true
}
