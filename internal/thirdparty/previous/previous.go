// Package previous is the version before this one, as Redis knows it: its scripts. Tests have instances of
// both versions share keys. When a release changes what scripts write, those of the release before it take
// the place of these.
package previous

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"embed"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"

	"github.com/trypema/trypema/redislimit"
)

//go:embed lua/*.lua
var lua embed.FS

// sources are its scripts, by what those of today begin with.
var sources = map[string]string{
	"-- Decides calls under Absolute":    read("absolute.lua"),
	"-- Decides calls under Suppressed":  read("suppressed.lua"),
	"-- Decides calls that have several": read("multi.lua"),
	"-- Changes what was admitted":       read("commit.lua"),
	"-- Makes the total":                 read("set.lua"),
	"-- Settles windows":                 read("settle.lua"),
}

var include = regexp.MustCompile(`(?m)^-- include (\w+\.lua)$`)

// read returns a file with those that it includes.
func read(name string) string {
	text, err := lua.ReadFile("lua/" + name)
	if err != nil {
		panic(err) // the file is part of the program
	}
	return include.ReplaceAllStringFunc(string(text), func(line string) string {
		return read(include.FindStringSubmatch(line)[1])
	})
}

// Conn is a Conn by which a provider of today runs the scripts of the version before. Where they take other
// arguments, or reply in another form, this is the place to translate. A script that it did not have is an
// error.
type Conn struct{ redislimit.Conn }

var errUnknown = errors.New("ERR the version before does not have this script")

// Run implements redislimit.Conn.
func (c Conn) Run(
	ctx context.Context, script, _ string, keys, args [][]string, answer func(i int, reply []any, err error),
) {
	for begins, source := range sources {
		if prelude, _, found := strings.Cut(script, begins); found { // the prelude is struct.lua, or nothing
			source = prelude + source
			sum := sha1.Sum([]byte(source)) //nolint:gosec // it is how Redis names scripts
			c.Conn.Run(ctx, source, hex.EncodeToString(sum[:]), keys, args, answer)
			return
		}
	}
	for i := range keys {
		answer(i, nil, errUnknown)
	}
}
