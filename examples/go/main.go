// Command go calls a licence service: acquire, a typed refusal, retries with the same id, and following a customer.
// docs/guide/calling-the-api.md explains each step. Run: go run ./examples/go HOST:PORT CUSTOMER
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/uuid"

	"licensed/client"
	"licensed/messages/licensedv1"
)

func main() {
	address, customer := "127.0.0.1:8080", "Bayley"
	if len(os.Args) == 3 {
		address, customer = os.Args[1], os.Args[2]
	}
	if err := run(context.Background(), address, customer); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, customer string) error {
	// The client repeats what may be repeated, each command with the same id.
	listener := client.Listener{Attempted: func(a client.Attempt) {
		var e *client.Error
		if errors.As(a.Err, &e) && e.Reason == "" {
			fmt.Println("retry")
		}
	}}
	c, err := client.Dial([]string{address}, client.Options{Listener: listener})
	if err != nil {
		return err
	}
	defer c.Close()
	acquire := &licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", CommandId: uuid.NewString(),
	}
	res, err := c.AcquireLicense(ctx, acquire)
	if err != nil {
		return err // With client.ErrOutcomeUnknown: keep the id, and send the command again later.
	}
	fmt.Println("acquired", res.License.TitleId, "until", res.License.ExpiresAt.AsTime().Format(time.RFC3339))
	if res, err = c.AcquireLicense(ctx, acquire); err != nil {
		return err
	}
	fmt.Println("the same command again: duplicate", res.Duplicate)

	// Without an id, the client makes one.
	if _, err := c.ChangePlan(ctx, &licensedv1.ChangePlanRequest{CustomerId: customer, PlanId: "basic"}); err != nil {
		return err
	}
	_, err = c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: "ipad", TitleId: "GlowS01E01",
	})
	var refusal *client.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	fmt.Printf("refused by %v: %d of %d\n", refusal.Rule, refusal.Current, refusal.Limit)

	after := uint64(0) // From the first event on.
	for item, err := range c.Follow(ctx, &licensedv1.FollowRequest{CustomerId: customer, AfterSequence: &after}) {
		if err != nil {
			return err
		}
		if e := item.GetEvent(); e != nil {
			fmt.Println("event", e.Sequence, e.Event)
		}
		if item.GetEvent().GetSequence() >= 4 {
			break
		}
	}
	return nil
}
