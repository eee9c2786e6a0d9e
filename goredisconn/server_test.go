package goredisconn_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// server stands for a Redis. It takes every script for "return {KEYS[1], #ARGV}".
type server struct {
	mu      sync.Mutex
	scripts map[string]bool // guarded by mu: those that it knows, by SHA-1
}

// dial connects to the server.
func (s *server) dial(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go s.serve(there)
	return here, nil
}

// serve answers commands, each an array of strings, until the client closes.
func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r, replies := bufio.NewReader(c), make(chan string, 1024)
	defer close(replies)
	go func() { // a client may send on before it reads
		for reply := range replies {
			_, _ = io.WriteString(c, reply) // to one that has closed, perhaps
		}
	}()
	for {
		n, err := number(r)
		if err != nil {
			return
		}
		args := make([]string, n)
		for i := range args {
			size, err := number(r)
			if err != nil {
				return
			}
			text := make([]byte, size+2)
			if _, err := io.ReadFull(r, text); err != nil {
				return
			}
			args[i] = string(text[:size])
		}
		replies <- s.answer(args)
	}
}

// number reads a line that is a sign and a number.
func number(r *bufio.Reader) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

func (s *server) answer(args []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch strings.ToUpper(args[0]) {
	case "HELLO":
		return "%2\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:3\r\n"
	case "SCRIPT": // LOAD
		sum := sha1.Sum([]byte(args[2]))
		name := hex.EncodeToString(sum[:])
		if s.scripts == nil {
			s.scripts = make(map[string]bool)
		}
		s.scripts[name] = true
		return fmt.Sprintf("$%d\r\n%s\r\n", len(name), name)
	case "EVALSHA":
		if !s.scripts[args[1]] {
			return "-NOSCRIPT No matching script. Please use EVAL.\r\n"
		}
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n:%d\r\n", len(args[3]), args[3], len(args)-4)
	case "CLUSTER":
		return "-ERR This instance has cluster support disabled\r\n"
	default:
		return "+OK\r\n"
	}
}
