// Reads user states from Redis with Go's standard library alone, written from docs/state-format.md.
//
//	go run . -bundle ../../var/model -redis 127.0.0.1:6379 u-17 u-42
//
// One JSON line for each user: status, age, length, embedding and slots. The exit code is 0 whatever the rows are; 1 if Redis did
// not answer before the deadline, or another model is active.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

type options struct {
	redis, user, password, prefix string
	maxAgeMs                      int64
	deadline                      time.Duration
	embeddingOnly                 bool
}

func main() {
	var o options
	bundle := flag.String("bundle", "var/model", "the model's bundle: a directory with manifest.json")
	flag.StringVar(&o.redis, "redis", "127.0.0.1:6379", "host:port")
	flag.StringVar(&o.user, "user", "default", "of Redis' ACL")
	flag.StringVar(&o.password, "password", os.Getenv("REDIS_PASSWORD"), "[default: $REDIS_PASSWORD]")
	flag.StringVar(&o.prefix, "prefix", "slipstream", "the deployment's prefix of keys")
	flag.Int64Var(&o.maxAgeMs, "max-age-ms", 0, "older states are STALE; 0: none is")
	flag.DurationVar(&o.deadline, "deadline", 100*time.Millisecond, "of the whole call")
	flag.BoolVar(&o.embeddingOnly, "embedding-only", false, "read headers and embeddings, and no slots")
	flag.Parse()
	if err := run(*bundle, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(bundle string, o options, users []string) error {
	model, err := LoadModel(bundle)
	if err != nil {
		return err
	}
	rows, err := Read(o, model, users)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, row := range rows {
		if err := out.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

// Read asks for all users, and for the active model, in one round trip.
func Read(o options, model Model, users []string) ([]Row, error) {
	deadline := time.Now().Add(o.deadline)
	redis, err := Dial(o.redis, o.deadline)
	if err != nil {
		return nil, err
	}
	defer redis.Close()

	var commands [][]string
	if o.password != "" {
		commands = append(commands, []string{"AUTH", o.user, o.password})
	}
	commands = append(commands, []string{"GET", o.prefix + ":active"})
	for _, user := range users {
		key := o.prefix + ":" + model.ID + ":" + user
		if o.embeddingOnly {
			commands = append(commands, []string{"GETRANGE", key, "0", strconv.Itoa(model.EmbeddingBytes() - 1)})
		} else {
			commands = append(commands, []string{"GET", key})
		}
	}
	replies, err := redis.Pipeline(commands, deadline)
	if err != nil {
		return nil, fmt.Errorf("Redis at %s gave no answer within %s: %w: rank without states", o.redis, o.deadline, err)
	}
	before, states := replies[:len(replies)-len(users)], replies[len(replies)-len(users):]
	for _, reply := range before {
		if reply.Err != nil {
			return nil, fmt.Errorf("Redis at %s: %w", o.redis, reply.Err)
		}
	}
	if active := string(before[len(before)-1].Value); active != "" && active != model.ID {
		return nil, fmt.Errorf("%s:active names model %s, the bundle is of %s: load the bundle of %s", o.prefix, active, model.ID, active)
	}
	rows := make([]Row, len(users))
	nowMs := time.Now().UnixMilli()
	for i, user := range users {
		if err := states[i].Err; err != nil { // of this key alone: WRONGTYPE
			rows[i] = Row{User: user, Status: Invalid, Why: err.Error()}
			continue
		}
		rows[i] = ReadState(user, states[i].Value, model, nowMs, o.maxAgeMs, o.embeddingOnly)
	}
	return rows, nil
}
