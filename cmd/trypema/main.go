// Command trypema shows the rate limiter at work, tries limits on logs, and sizes the Redis that limits need.
package main

import (
	"github.com/trypema/trypema/cmd/trypema/internal/demo"
	"github.com/trypema/trypema/cmd/trypema/internal/replay"
	"github.com/trypema/trypema/cmd/trypema/internal/sim"
	"github.com/trypema/trypema/internal/cli"
)

type commands struct {
	Demo   demo.Command   `cmd:"" help:"Show all six limiters under the same HTTP traffic, on a page; or judge the guarantees of one provider, with --headless."`
	Replay replay.Command `cmd:"" help:"Read access logs, and show whom a limit would have limited; or propose one."`
	Sim    sim.Command    `cmd:"" help:"Simulate many instances of the Hybrid provider, and size the Redis that they need."`
}

func main() { program().Main() }

func program() cli.Program {
	return cli.Program{Name: "trypema", Description: "An exact sliding-window rate limiter at work.", Commands: new(commands)}
}
