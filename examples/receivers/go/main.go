// Receives webhooks: verifies, answers, and only then works. A repeat is worked on once.
//
// Usage: WEBHOOK_SECRET=whsec_… receiver PORT
//
// What was seen is remembered in memory here. A service keeps it in its database, with the webhook-id as a unique
// key, in the transaction that does the work; then it also holds when the service is restarted.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	largestBody    = 1 << 20
	mostRemembered = 100_000
	mostWaiting    = 1_000
)

// Notification is what is worked on.
type Notification struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Traceparent string          `json:"traceparent"`
	Data        json.RawMessage `json:"data"`
}

// Receiver verifies and remembers.
type Receiver struct {
	webhook *standardwebhooks.Webhook
	waiting chan Notification

	mutex sync.Mutex
	seen  map[string]bool
	// The order in which they were seen, so that the oldest is forgotten first.
	order []string
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, largestBody))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	// On the bytes as they came, before anything parses them.
	if err := r.webhook.Verify(body, request.Header); err != nil {
		log.Printf("refused: %v", err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	notification := Notification{
		ID:          request.Header.Get("webhook-id"),
		Traceparent: request.Header.Get("traceparent"),
	}
	if err := json.Unmarshal(body, &notification); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(r.take(notification))
}

// take hands the notification to the worker, once. The answer does not wait for the work.
func (r *Receiver) take(notification Notification) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.seen[notification.ID] {
		return http.StatusNoContent
	}
	select {
	case r.waiting <- notification:
	default:
		// Better to be called again than to promise what a full memory cannot keep.
		return http.StatusServiceUnavailable
	}
	r.seen[notification.ID] = true
	r.order = append(r.order, notification.ID)
	if len(r.order) > mostRemembered {
		delete(r.seen, r.order[0])
		r.order = r.order[1:]
	}
	return http.StatusNoContent
}

func (r *Receiver) work() {
	out := json.NewEncoder(os.Stdout)
	for notification := range r.waiting {
		if err := out.Encode(notification); err != nil {
			log.Fatal(err)
		}
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: receiver PORT")
	}
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatalf("WEBHOOK_SECRET: %v", err)
	}
	receiver := &Receiver{
		webhook: webhook,
		waiting: make(chan Notification, mostWaiting),
		seen:    make(map[string]bool),
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening at http://%s/\n", listener.Addr())
	go receiver.work()
	log.Fatal(http.Serve(listener, receiver))
}
