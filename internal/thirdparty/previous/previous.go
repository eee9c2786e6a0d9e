// Package previous is the version before this one, as Redis knows it: its scripts. Tests have instances of
// both versions share keys. When a release changes what scripts write, those of the release before it take
// the place of these.
package previous

import (
	"context"
	"embed"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/redislimit"
)

//go:embed lua/*.lua
var lua embed.FS

// files are its scripts. They have the names of those of today.
var files = func() map[string]string {
	all := make(map[string]string)
	for _, name := range []string{
		"absolute.lua", "suppressed.lua", "multi.lua", "commit.lua", "set.lua", "settle.lua",
	} {
		all[name] = read(name)
	}
	return all
}()

// portable is put before a script for a server whose Lua lacks the library struct.
var portable = read("struct.lua")

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
	ctx context.Context, script, sha1 string, keys, args [][]string,
	answer func(i int, reply []any, err error),
) {
	name := redisproto.NameOf(script)
	source, known := files[name]
	if strings.Contains(script, "\nlocal struct = {}\n") { // that of today has it
		source = portable + source
	}
	switch name {
	case "multi.lua":
		args = withoutLives(keys, args)
	case "commit.lua":
		args, answer = settling(keys, args, answer)
	case "settle.lua":
		args, answer = leasing(args, answer)
	}
	if known && args != nil {
		if sha1 != "" {
			sha1 = redis.NewScript(source).Hash()
		}
		c.Conn.Run(ctx, source, sha1, keys, args, answer)
		return
	}
	for i := range keys {
		answer(i, nil, errUnknown)
	}
}

// withoutLives returns the arguments of multi.lua, where runs of calls had no life, or nil if one has.
func withoutLives(keys, args [][]string) (out [][]string) {
	for i, a := range args {
		head := 5 + 3*len(keys[i])
		was := slices.Clone(a[:head])
		for run := range slices.Chunk(a[head:], 3) {
			if run[2] != "0" {
				return nil
			}
			was = append(was, run[:2]...)
		}
		out = append(out, was)
	}
	return out
}

// settling returns the arguments of commit.lua, to which a call was recorded when it was admitted, or nil if
// one was not; and what makes its reply, whether that was there, that of today.
func settling(
	keys, args [][]string, answer func(int, []any, error),
) (out [][]string, translated func(int, []any, error)) {
	for i, a := range args {
		was := slices.Clone(a[:5])
		for w := range slices.Chunk(a[5:5+4*len(keys[i])], 4) {
			if w[2] != w[3] {
				return nil, nil
			}
			was = append(was, w[:3]...)
		}
		out = append(out, was)
	}
	return out, func(i int, reply []any, err error) {
		var both []any
		for _, one := range reply {
			there, ok := one.(int64)
			switch {
			case !ok: // a fault
				both = append(both, one)
			case there == 0:
				both = append(both, int64(0), int64(0))
			default:
				removed, _ := strconv.ParseInt(args[i][3], 10, 64)
				added, _ := strconv.ParseInt(args[i][4], 10, 64)
				both = append(both, removed, added)
			}
		}
		answer(i, both, err)
	}
}

// leasing returns the arguments of settle.lua, of which messages were shorter; and what makes its reply,
// which did not say whether a lease is far from the limit, that of today.
func leasing(
	args [][]string, answer func(int, []any, error),
) (out [][]string, translated func(int, []any, error)) {
	const head, keptAt, leastAt, briefAt, flagsAt = 3, 31, 52, 73, 108
	for _, a := range args {
		was := slices.Clone(a[:head])
		for _, m := range a[head:] {
			m = m[:keptAt] + m[keptAt+7:leastAt] + m[leastAt+7:briefAt] + m[briefAt+21:flagsAt] +
				string(m[flagsAt]&1) + m[flagsAt+1:]
			was = append(was, m)
		}
		out = append(out, was)
	}
	return out, func(i int, reply []any, err error) {
		var today []any
		for _, m := range args[i][head:] {
			if len(reply) == 0 {
				break
			}
			grant, answered := reply[0].(int64)
			if !answered || grant < 0 {
				today, reply = append(today, reply[0]), reply[1:]
				continue
			}
			n := 11 // numbers, as it was
			if m[flagsAt]&1 == 1 {
				if n++; reply[11] != int64(0) {
					n += 3
				}
			}
			far := int64(0)
			if life := strconv.FormatInt(reply[1].(int64), 10); life == args[i][2] {
				far = 1
			}
			today = append(append(append(today, reply[:2]...), far), reply[2:6]...)
			today = append(append(today, int64(0)), reply[6:11]...)
			today = append(append(today, int64(-1)), reply[11:n]...)
			reply = reply[n:]
		}
		answer(i, today, err)
	}
}
