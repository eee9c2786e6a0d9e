package main

import (
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/goredisconn"
	"github.com/trypema/trypema/hybridlimit"
	"github.com/trypema/trypema/redislimit"
)

// open returns the provider that was asked for, and what closes its client. Nothing else in the program knows
// which one it is.
func open(name, url string, o trypema.Options) (trypema.Provider, func() error, error) {
	if name == "" && url != "" {
		name = "hybrid"
	}
	if name == "" || name == "local" {
		limits, err := trypema.NewLocal(o)
		return limits, func() error { return nil }, err
	}
	if name != "redis" && name != "hybrid" {
		return nil, nil, fmt.Errorf("--provider is %q; it must be local, redis or hybrid", name)
	}
	server, err := redis.ParseURL(url)
	if err != nil { // which may show the password
		return nil, nil, errors.New("--redis or REDIS_URL must be a URL such as redis://user:password@host:6379/0")
	}
	server.ContextTimeoutEnabled = true // an exchange ends when the provider no longer waits for it
	client := redis.NewClient(server)
	var limits trypema.Provider
	if of := (redislimit.Options{Options: o, Prefix: "saas"}); name == "redis" {
		limits, err = redislimit.New(goredisconn.New(client), of)
	} else {
		limits, err = hybridlimit.New(goredisconn.New(client), hybridlimit.Options{Options: of})
	}
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return limits, client.Close, nil
}
