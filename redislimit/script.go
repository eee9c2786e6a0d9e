package redislimit

import (
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"embed"
	"encoding/hex"
	"regexp"
)

//go:embed lua/*.lua
var lua embed.FS

// script is a Lua program, and its name in Redis.
type script struct{ source, sha1 string }

// scripts are the operations on one key.
type scripts struct{ absolute, suppressed, set script }

var (
	plain = loadScripts("")
	// portable is for servers whose Lua lacks the library struct.
	portable = loadScripts(read("struct.lua"))
)

func loadScripts(prelude string) *scripts {
	load := func(name string) script {
		source := prelude + read(name)
		sum := sha1.Sum([]byte(source)) //nolint:gosec // it is how Redis names scripts
		return script{source, hex.EncodeToString(sum[:])}
	}
	return &scripts{load("absolute.lua"), load("suppressed.lua"), load("set.lua")}
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
