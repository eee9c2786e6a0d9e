// Command trypema serves rate limits, checks their files, shows the rate limiter at work, tries limits on
// logs, and sizes the Redis that limits need.
package main

import (
	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/cmd/trypema/internal/check"
	"github.com/trypema/trypema/cmd/trypema/internal/demo"
	"github.com/trypema/trypema/cmd/trypema/internal/replay"
	"github.com/trypema/trypema/cmd/trypema/internal/serve"
	"github.com/trypema/trypema/cmd/trypema/internal/sim"
	"github.com/trypema/trypema/internal/cli"
)

type commands struct {
	Check  check.Command  `cmd:"" help:"Check files of limits, and print the rules, or what is wrong."`
	Demo   demo.Command   `cmd:"" help:"Show all six limiters under the same HTTP traffic, on a page."`
	Replay replay.Command `cmd:"" help:"Read access logs, and show whom a limit would have limited; or propose one."`
	Serve  serve.Command  `cmd:"" help:"Serve rate limits to Envoy, other proxies, and clients of Redis and HTTP."`
	Sim    sim.Command    `cmd:"" help:"Simulate instances of Hybrid, and size the Redis that they need."`

	Completion cli.Completion   `cmd:"" help:"Print what bash, zsh or fish needs to complete commands and flags."`
	Version    kong.VersionFlag `help:"Print the version, the commit and the version of Go, and exit."`
}

func main() { program().Main() }

func program() cli.Program {
	return cli.Program{
		Name: "trypema", Description: "An exact sliding-window rate limiter at work.", Commands: new(commands),
	}
}
