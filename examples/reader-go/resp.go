package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Redis speaks as much of RESP2 as reading states takes. Use a well-kept client in a service; this one keeps the example's bare bones in sight.
type Redis struct {
	conn net.Conn
	in   *bufio.Reader
}

// Reply is one command's answer: bytes, nil where there is nothing, or an error of that command alone.
type Reply struct {
	Value []byte
	Err   error
}

func Dial(address string, timeout time.Duration) (*Redis, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, fmt.Errorf("Redis at %s: %w: is it running?", address, err)
	}
	return &Redis{conn, bufio.NewReaderSize(conn, 1<<18)}, nil
}

func (r *Redis) Close() error { return r.conn.Close() }

// Pipeline sends all commands at once and reads their answers, before the deadline. After an error the connection is of no more use.
func (r *Redis) Pipeline(commands [][]string, deadline time.Time) ([]Reply, error) {
	if err := r.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, command := range commands {
		fmt.Fprintf(&out, "*%d\r\n", len(command))
		for _, word := range command {
			fmt.Fprintf(&out, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	// Sent beside the reading: Redis stops reading when answers pile up, and so would we.
	sent := make(chan error, 1)
	go func() {
		_, err := r.conn.Write(out.Bytes())
		sent <- err
	}()
	replies := make([]Reply, len(commands))
	for i := range replies {
		reply, err := r.reply()
		if err != nil {
			return nil, err
		}
		replies[i] = reply
	}
	return replies, <-sent
}

func (r *Redis) reply() (Reply, error) {
	line, err := r.in.ReadString('\n')
	if err != nil {
		return Reply{}, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return Reply{}, fmt.Errorf("Redis answers with an empty line: is it a Redis?")
	}
	switch line[0] {
	case '+':
		return Reply{Value: []byte(line[1:])}, nil
	case '-':
		return Reply{Err: fmt.Errorf("Redis answers: %s", line[1:])}, nil
	case '$':
		size, err := strconv.Atoi(line[1:])
		if err != nil || size > 512<<20 {
			return Reply{}, fmt.Errorf("Redis answers %q: is it a Redis?", line)
		}
		if size < 0 {
			return Reply{}, nil
		}
		value := make([]byte, size+2)
		_, err = io.ReadFull(r.in, value)
		return Reply{Value: value[:size]}, err
	}
	return Reply{}, fmt.Errorf("Redis answers %q, which no command here asks for", line)
}
