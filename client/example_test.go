package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/client"
	"licensed/messages/licensedv1"
)

func Example() {
	address, stop := exampleGateway()
	defer stop()
	c, err := client.Dial([]string{address}, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	res, err := c.AcquireLicense(context.Background(), &licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "iphone", TitleId: "GlowS01E01",
		DeviceName: "Bayley's iPhone", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_PHONE,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("expires", res.License.ExpiresAt.AsTime().Format(time.DateOnly))
	// Output: expires 2026-12-23
}

func ExampleRefusal() {
	address, stop := exampleGateway()
	defer stop()
	c, err := client.Dial([]string{address}, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.AcquireLicense(context.Background(), &licensedv1.AcquireLicenseRequest{
		CustomerId: "Bayley", DeviceId: "ipad", TitleId: "GlowS01E01",
	})
	var refusal *client.Refusal
	switch {
	case errors.As(err, &refusal):
		fmt.Printf("%v: %d of %d, again on %s\n",
			refusal.Rule, refusal.Current, refusal.Limit, refusal.NextAllowedAt.Format(time.DateOnly))
	case errors.Is(err, client.ErrOutcomeUnknown):
		var e *client.Error
		errors.As(err, &e)
		fmt.Println("keep the id and send the command again:", e.CommandID)
	}
	// Output: RULE_DEVICE_LIMIT: 1 of 1, again on 2026-12-23
}

func ExampleClient_Follow() {
	address, stop := exampleGateway()
	defer stop()
	c, err := client.Dial([]string{address}, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	after := uint64(0) // From the first event on; later, the last sequence that was processed.
	for item, err := range c.Follow(context.Background(),
		&licensedv1.FollowRequest{CustomerId: "Bayley", AfterSequence: &after}) {
		if err != nil {
			log.Fatal(err)
		}
		if e := item.GetEvent(); e != nil {
			fmt.Println(e.Sequence, e.Event)
			if e.Sequence == 3 {
				break
			}
		}
	}
	// Output:
	// 1 DeviceRegistered
	// 2 LicenseAcquired
	// 3 DownloadRecorded
}

// exampleGateway is a service in which customers may have one device, the iphone.
func exampleGateway() (address string, stop func()) {
	next := timestamppb.New(time.Date(2026, 12, 23, 7, 28, 4, 0, time.UTC))
	g := &gateway{
		acquire: func(_ context.Context, m *licensedv1.AcquireLicenseRequest) error {
			if m.DeviceId == "iphone" {
				return nil
			}
			return failure(codes.FailedPrecondition, licensedv1.ReasonRefused, "1 device has active licences",
				&licensedv1.Refusal{
					Rule:          licensedv1.Rule_RULE_DEVICE_LIMIT,
					Limit:         1,
					Current:       1,
					NextAllowedAt: next,
					Message:       "1 device has active licences",
				})
		},
		license: &licensedv1.License{ExpiresAt: next},
		follow: func(_ *licensedv1.FollowRequest, s grpc.ServerStreamingServer[licensedv1.FollowResponse]) error {
			m := events(1, 2, 3)
			for i, name := range []string{"DeviceRegistered", "LicenseAcquired", "DownloadRecorded"} {
				m.Items[i].GetEvent().Event = name
			}
			return s.Send(m)
		},
	}
	return g.serve()
}
