// Publishes events to Fanfare with amqp091-go: many at once, each confirmed, and as part of a trace.
//
// Usage: producer AMQP_URL TENANT COUNT
//
// An event is lost only if its producer forgets it, so each is published until RabbitMQ confirms it. Publishing one
// twice does no harm: Fanfare and receivers know it by tenant, source and id.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	exchange = "fanfare.events"
	tries    = 5
	// More would wait in this process anyway, where they are lost if it dies.
	mostInFlight = 100
)

// Event is a CloudEvent in structured JSON mode.
type Event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Tenant      string    `json:"tenant"`
	Time        time.Time `json:"time"`
	Data        any       `json:"data"`
}

// Producer publishes over one channel in confirm mode. Not for use by several goroutines.
type Producer struct {
	channel *amqp.Channel
	// What no queue takes is returned before it is confirmed, so a return is here when its confirm is.
	returns chan amqp.Return
}

// NewProducer opens the channel.
func NewProducer(connection *amqp.Connection) (*Producer, error) {
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	returns := channel.NotifyReturn(make(chan amqp.Return, mostInFlight))
	return &Producer{channel: channel, returns: returns}, nil
}

// PublishAll returns once RabbitMQ has stored every event, or says which it did not.
func (p *Producer) PublishAll(ctx context.Context, events []Event, traceparent string) error {
	for attempt := 1; len(events) > 0; attempt++ {
		var missing []Event
		for len(events) > 0 {
			page := events[:min(len(events), mostInFlight)]
			events = events[len(page):]
			refused, err := p.publishPage(ctx, page, traceparent)
			if err != nil {
				return err
			}
			missing = append(missing, refused...)
		}
		if len(missing) > 0 {
			if attempt == tries {
				return fmt.Errorf("%d events were not stored, the first is %s", len(missing), missing[0].ID)
			}
			// The queue is full. The broker wants us to slow down.
			log.Printf("RabbitMQ refused %d events: its queue is full (try %d of %d)", len(missing), attempt, tries)
			time.Sleep(100 * time.Millisecond << attempt)
		}
		events = missing
	}
	return nil
}

// publishPage publishes together, waits for every confirm, and returns what was refused.
func (p *Producer) publishPage(ctx context.Context, page []Event, traceparent string) ([]Event, error) {
	confirms := make([]*amqp.DeferredConfirmation, len(page))
	for i, event := range page {
		body, err := json.Marshal(event)
		if err != nil {
			return nil, err
		}
		// The first word of the routing key has to be the tenant.
		key := event.Tenant + "." + event.Type
		confirms[i], err = p.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, amqp.Publishing{
			ContentType:  "application/cloudevents+json",
			DeliveryMode: amqp.Persistent,
			MessageId:    event.ID,
			Headers:      amqp.Table{"traceparent": traceparent},
			Body:         body,
		})
		if err != nil {
			return nil, err
		}
	}
	var refused []Event
	for i, confirm := range confirms {
		stored, err := confirm.WaitContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("no confirm for %s, publish it again: %w", page[i].ID, err)
		}
		if !stored {
			refused = append(refused, page[i])
		}
	}
	select {
	case returned := <-p.returns:
		return nil, fmt.Errorf("%s was returned: no queue takes it", returned.MessageId)
	default:
		return refused, nil
	}
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("usage: producer AMQP_URL TENANT COUNT")
	}
	url, tenant := os.Args[1], os.Args[2]
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	connection, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer connection.Close()
	producer, err := NewProducer(connection)
	if err != nil {
		return err
	}
	events := make([]Event, count)
	for number := range events {
		events[number] = Event{
			SpecVersion: "1.0",
			// Chosen once and kept with the business data, so that every repeat has the same.
			ID:     "go-" + strconv.Itoa(number),
			Source: "/examples/go",
			Type:   "reward.unlocked",
			Tenant: tenant,
			Time:   time.Now().UTC(),
			Data:   map[string]any{"reward": number, "language": "go"},
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := producer.PublishAll(ctx, events, traceparent()); err != nil {
		return err
	}
	fmt.Printf("RabbitMQ has stored %d events\n", count)
	return nil
}

// traceparent is taken by a service from the request that it is working on; an OpenTelemetry SDK does so by itself.
func traceparent() string {
	if given := os.Getenv("TRACEPARENT"); given != "" {
		return given
	}
	ids := make([]byte, 24)
	if _, err := rand.Read(ids); err != nil {
		panic(err)
	}
	return "00-" + hex.EncodeToString(ids[:16]) + "-" + hex.EncodeToString(ids[16:]) + "-01"
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
