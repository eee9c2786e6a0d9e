// Package redisproto is how the providers with Redis talk to it:
//
//	names.go      the names of keys in Redis
//	arguments.go  what verbs may be given, and how scripts get it
//	script.go     the scripts, lua/*.lua: one file for each operation, and what they share
//	server.go     Run: a script on a server, whatever it turns out to be; what it refused is asked for again
//	load.go       what becomes of a script that a server does not know (NOSCRIPT)
//	fault.go      which errors of a server mean what
//	reader.go     replies, taken apart
//	message.go    the messages of Hybrid, in bytes
//	decision.go   what a verdict is to a caller
//	meter.go      what an Observer reads
package redisproto

import (
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"embed"
	"encoding/hex"
	"regexp"
	"strconv"

	"github.com/trypema/trypema/internal/window"
)

//go:embed lua/*.lua
var lua embed.FS

// Script is a Lua program, and its name in Redis.
type Script struct{ Source, SHA1 string }

// names are those of the files, by the source that is made from them.
var names = make(map[string]string)

// NameOf returns the name of the file that a script is from, such as settle.lua, or "" if it is none of the
// operations. It is for tests and tools that stand between a provider and Redis.
func NameOf(source string) string { return names[source] }

// Scripts are the operations on a key.
type Scripts struct{ Absolute, Suppressed, Multi, Commit, Set, Settle, Mend Script }

var (
	plain = load("")
	// portable is for servers whose Lua lacks the library struct.
	portable = load(read("struct.lua"))
)

func load(prelude string) *Scripts {
	script := func(name string) Script {
		source := prelude + read(name)
		names[source] = name
		sum := sha1.Sum([]byte(source)) //nolint:gosec // it is how Redis names scripts
		return Script{source, hex.EncodeToString(sum[:])}
	}
	return &Scripts{
		Absolute:   script("absolute.lua"),
		Suppressed: script("suppressed.lua"),
		Multi:      script("multi.lua"),
		Commit:     script("commit.lua"),
		Set:        script("set.lua"),
		Settle:     script("settle.lua"),
		Mend:       script("mend.lua"),
	}
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

// SpanArgs returns the ARGV that every script begins with. The unit of s is a microsecond.
func SpanArgs(s window.Span) []string {
	return []string{strconv.FormatInt(s.Window, 10), strconv.FormatInt(s.Bucket, 10)}
}
