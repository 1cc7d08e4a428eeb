// Command offline is a device: it acquires a signed licence, and then checks without a connection that it may play.
// docs/guide/offline-devices.md explains each step. Run: go run ./examples/go/offline HOST:PORT CUSTOMER
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"licensed/client"
	"licensed/licensetoken"
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
	res, err := c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
		CustomerId: customer, DeviceId: "iphone", TitleId: "GlowS01E01", Signed: true,
	})
	if err != nil {
		return err
	}
	keys, err := http.Get("http://" + address + "/.well-known/jwks.json")
	if err != nil {
		return err
	}
	defer keys.Body.Close()
	jwks, err := io.ReadAll(io.LimitReader(keys.Body, 1<<20))
	if err != nil {
		return err
	}
	seen, err := http.ParseTime(keys.Header.Get("Date"))
	if err != nil {
		return err
	}

	// The connection is gone. The device has stored the token, the keys, and the time of the service that it saw.
	check := func(clock, firstPlayed time.Time) {
		l, err := client.VerifyLicense(res.SignedLicense, client.Offline{
			JWKS: jwks, DeviceID: "iphone", Clock: clock, ServerTime: seen, FirstPlayed: firstPlayed,
		})
		switch {
		case errors.Is(err, licensetoken.ErrExpired):
			fmt.Println("expired: connect and renew")
		case errors.Is(err, licensetoken.ErrHoursPassed):
			fmt.Println("the hours after the first playback have passed")
		case err != nil:
			fmt.Println("do not play:", err)
		case l.May(licensetoken.Play):
			fmt.Println("may play", l.TitleID, "until", l.EndsAt(firstPlayed).Format(time.RFC3339))
		}
	}
	now, never := time.Now(), time.Time{}
	check(now, never)
	check(now.AddDate(0, 0, -300), never) // The clock was set back: the time of the service counts.
	check(now.Add(time.Hour), now)        // It stores the first playback, and reports it later.
	check(now.Add(100*time.Hour), now)
	check(now.AddDate(1, 0, 0), never)
	return nil
}
