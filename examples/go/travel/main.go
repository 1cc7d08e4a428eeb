// Command travel is a device before a trip: it borrows downloads, acquires within what it borrowed, and hands back the
// rest. docs/guide/offline-devices.md explains each step. Run: go run ./examples/go/travel HOST:PORT CUSTOMER
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

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
	c, err := client.Dial([]string{address}, client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	acquire := func(title, allowance string) error {
		// The client gives the request an id. An app that may crash keeps one of its own with the request.
		res, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId: customer, DeviceId: "tablet", TitleId: title, Signed: true,
			SignedAllowance: allowance,
		})
		if err != nil {
			return err
		}
		until := res.License.ExpiresAt.AsTime().Format(time.RFC3339)
		if res.Provisional != nil { // The service is unavailable: send it again, with its id, before it expires.
			fmt.Println("granted", title, "until", until)
		} else {
			fmt.Println("acquired", title, "until", until)
		}
		return nil
	}
	if err := acquire("GlowS01E01", ""); err != nil { // Only a device with a download borrows.
		return err
	}

	// Before the trip, while the service is available. The most wanted title is the first.
	lent, err := c.LendAllowance(ctx, &licensedv1.LendAllowanceRequest{
		CustomerId: customer, DeviceId: "tablet", TitleIds: []string{"GlowS01E02", "GlowS01E03"},
	})
	if refusal := (*client.Refusal)(nil); errors.As(err, &refusal) {
		fmt.Println("nothing is lent:", refusal.Message)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println("lent", lent.Allowance.TitleIds, "until", lent.Allowance.ExpiresAt.AsTime().Format(time.RFC3339))

	// During the trip, also while the service is unavailable. What was borrowed is shown with each acquisition.
	if err := acquire("GlowS01E02", lent.SignedAllowance); err != nil {
		return err
	}
	rest, err := c.ReturnAllowance(ctx, &licensedv1.ReturnAllowanceRequest{
		CustomerId: customer, DeviceId: "tablet", SignedAllowance: lent.SignedAllowance,
	})
	if err != nil {
		return err
	}
	fmt.Println("handed back", rest.TitleIds)
	return nil
}
