// A web service that tells Slipstream what users do: net/http, and franz-go's producer.
//
//	POST /engagements  {"user_id": "u-17", "item_id": "pin-9", "action": "save", "surface": "home"}
//	    202  the event is in Kafka, on all in-sync replicas
//	    400  it is no event: the body says why
//	    503  Kafka did not take it in time: the caller may send it again
//	GET  /health       200 while the service serves
//
// Run: KAFKA_BOOTSTRAP=127.0.0.1:9092 go run .
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const maxBodyBytes = 4096

// What a client may say. When it happened is for the server to say: clients' clocks are wrong.
type engagement struct {
	UserID  string `json:"user_id"`
	ItemID  itemID `json:"item_id"`
	Action  string `json:"action"`
	Surface string `json:"surface"`
}

type event struct {
	engagement
	TimestampMs int64 `json:"timestamp_ms"`
}

// An integer in [0, 2^63) or text, as the client wrote it: a float64 would lose digits of large ones.
type itemID struct{ json.RawMessage }

func (id *itemID) UnmarshalJSON(raw []byte) error {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		if err := checkText("item_id", text); err != nil {
			return err
		}
	} else if _, err := strconv.ParseUint(string(raw), 10, 63); err != nil {
		return errors.New("item_id is neither text nor an integer in [0, 2^63)")
	}
	id.RawMessage = append(json.RawMessage(nil), raw...)
	return nil
}

func (e engagement) check() error {
	if e.ItemID.RawMessage == nil {
		return errors.New("item_id is missing")
	}
	return errors.Join(checkText("user_id", e.UserID), checkText("action", e.Action), checkText("surface", e.Surface))
}

func checkText(name, text string) error {
	if len(text) < 1 || len(text) > 64 {
		return fmt.Errorf("%s must be text of 1 to 64 bytes", name)
	}
	return nil
}

type service struct {
	client *kgo.Client
	topic  string
}

func (s service) engagements(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	var said engagement
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&said)
	if err == nil {
		err = said.check()
	}
	if tooLong := (&http.MaxBytesError{}); errors.As(err, &tooLong) {
		answer(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBodyBytes))
		return
	} else if err != nil {
		answer(w, http.StatusBadRequest, "no engagement: "+err.Error())
		return
	}
	value, err := json.Marshal(event{said, now.UnixMilli()})
	if err != nil {
		answer(w, http.StatusBadRequest, "no engagement: "+err.Error())
		return
	}
	// The key keeps a user's events on one partition, and so in order. Not the request's context: a client that hangs up
	// has still done what it told.
	record := &kgo.Record{Topic: s.topic, Key: []byte(said.UserID), Value: value}
	if err := s.client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		log.Printf("not delivered: an event of %s: %v", said.UserID, err)
		answer(w, http.StatusServiceUnavailable, "not delivered in time: try again")
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func answer(w http.ResponseWriter, status int, problem string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": problem})
}

func run() error {
	timeoutMs, err := strconv.Atoi(variable("DELIVERY_TIMEOUT_MS", "10000"))
	if err != nil {
		return fmt.Errorf("DELIVERY_TIMEOUT_MS: %w", err)
	}
	// The defaults are what is wanted here: idempotent, acks=all, Java's partitioner, batches compressed by snappy.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(variable("KAFKA_BOOTSTRAP", "127.0.0.1:9092"), ",")...),
		kgo.RecordDeliveryTimeout(time.Duration(timeoutMs)*time.Millisecond),
		kgo.ProducerLinger(2*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer client.Close()

	s := service{client, variable("TOPIC", "slipstream.engagements")}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /engagements", s.engagements)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{
		Addr:              "127.0.0.1:" + variable("PORT", "8081"),
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
	}

	stop, done := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer done()
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	// Requests that are under way end, and with them their sends; then what the client still holds.
	ending, cancel := context.WithTimeout(context.Background(), time.Duration(timeoutMs)*time.Millisecond+5*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ending), client.Flush(ending))
}

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
