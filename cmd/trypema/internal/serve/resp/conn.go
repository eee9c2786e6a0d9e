package resp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/conns"
)

// The bounds of one command. A client that has not given its token may send less.
const (
	maxArgs     = 64
	maxArg      = 64 << 10
	maxCommand  = 128 << 10
	maxStranger = 1 << 10

	bufferSize = 4 << 10
	flushAt    = 32 << 10 // of answers to commands of a pipeline
	keepAtMost = 16 << 10 // of memory while a connection is idle
)

// protocolError ends a connection, after it has been told.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// conn is a connection. One goroutine reads its commands and writes the answers, which go out when no more
// commands have come.
type conn struct {
	*conns.Conn
	server *Server
	id     int64
	in     *bufio.Reader
	out    []byte

	data []byte // of the arguments, one after the other
	ends []int
	args [][]byte

	isAuthenticated bool
	isVersion3      bool
	isLast          bool // the connection ends after the answer
	name            string
}

// readCommand reads the next command into args, which is empty for an empty line.
func (c *conn) readCommand() error {
	c.Begin(c.in.Buffered() > 0)
	c.data, c.ends, c.args = c.data[:0], c.ends[:0], c.args[:0]
	line, err := c.readLine("too big inline request")
	if err != nil {
		return err
	}
	if len(line) > 0 && line[0] == '*' {
		err = c.readArray(line[1:])
	} else {
		err = c.splitLine(line)
	}
	if err != nil {
		return err
	}
	start := 0
	for _, end := range c.ends {
		c.args = append(c.args, c.data[start:end:end])
		start = end
	}
	return nil
}

// readLine returns a line without its end. It is valid until the next read.
func (c *conn) readLine(tooLong string) ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, protocolError(tooLong)
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// readArray reads the elements of an array whose length is in count.
func (c *conn) readArray(count []byte) error {
	n, ok := number(count)
	if !ok || n > maxArgs {
		return protocolError("invalid multibulk length")
	}
	most := maxArg
	if !c.isAuthenticated {
		most = maxStranger
	}
	for range n {
		line, err := c.readLine("too big bulk count string")
		switch {
		case err != nil:
			return noEOF(err)
		case len(line) == 0 || line[0] != '$':
			first := ""
			if len(line) > 0 {
				first = string(line[:1])
			}
			return protocolError("expected '$', got " + strconv.QuoteToASCII(first))
		}
		size, ok := number(line[1:])
		if !ok || size < 0 || size > most || len(c.data)+size > maxCommand {
			return protocolError("invalid bulk length")
		}
		at := len(c.data)
		if cap(c.data) < at+size {
			c.data = append(make([]byte, 0, 2*(at+size)), c.data...)
		}
		c.data = c.data[:at+size]
		if _, err := io.ReadFull(c.in, c.data[at:]); err != nil {
			return noEOF(err)
		}
		c.ends = append(c.ends, len(c.data))
		if end, err := c.readLine("expected CRLF after a bulk"); err != nil {
			return noEOF(err)
		} else if len(end) > 0 {
			return protocolError("expected CRLF after a bulk")
		}
	}
	return nil
}

// splitLine takes the words of a line, as a person types them, for arguments.
func (c *conn) splitLine(line []byte) error {
	words := bytes.Fields(line)
	if len(words) > maxArgs {
		return protocolError("too big inline request")
	}
	for _, word := range words {
		if n := len(word); word[0] == '"' || word[0] == '\'' {
			if n < 2 || word[n-1] != word[0] {
				return protocolError("unbalanced quotes in request")
			}
			word = word[1 : n-1]
		}
		c.data = append(c.data, word...)
		c.ends = append(c.ends, len(c.data))
	}
	return nil
}

// number parses a whole number of at most nine digits.
func number(b []byte) (n int, ok bool) {
	if n, err := strconv.Atoi(string(b)); err == nil && len(b) <= 9 && b[0] != '+' {
		return n, true
	}
	return 0, false
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// flush sends the answers.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > keepAtMost {
		c.out = nil
	}
	if cap(c.data) > keepAtMost {
		c.data = nil
	}
	return err
}

// The answers.

func (c *conn) simple(s string) { c.out = append(append(append(c.out, '+'), s...), "\r\n"...) }

// fail answers with an error, whose text begins with its code.
func (c *conn) fail(format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	c.out = append(c.out, '-')
	for i := range len(text) {
		if b := text[i]; b == '\r' || b == '\n' {
			c.out = append(c.out, ' ')
		} else {
			c.out = append(c.out, b)
		}
	}
	c.out = append(c.out, "\r\n"...)
}

func (c *conn) integer(n int64) {
	c.out = append(c.out, ':')
	c.out = strconv.AppendInt(c.out, n, 10)
	c.out = append(c.out, "\r\n"...)
}

func (c *conn) bulk(s string) {
	c.length('$', len(s))
	c.out = append(append(c.out, s...), "\r\n"...)
}

func (c *conn) null() {
	if c.isVersion3 {
		c.out = append(c.out, "_\r\n"...)
		return
	}
	c.out = append(c.out, "$-1\r\n"...)
}

func (c *conn) length(kind byte, n int) {
	c.out = append(c.out, kind)
	c.out = strconv.AppendInt(c.out, int64(n), 10)
	c.out = append(c.out, "\r\n"...)
}

// array begins an array of n elements.
func (c *conn) array(n int) { c.length('*', n) }

// pairs begins a map of n pairs, which in version 2 is an array.
func (c *conn) pairs(n int) {
	if c.isVersion3 {
		c.length('%', n)
		return
	}
	c.array(2 * n)
}
