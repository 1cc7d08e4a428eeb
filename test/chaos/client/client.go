// Package client speaks to a licence service as the chaos tool's clients do: one attempt for each
// request, and an outcome that claims no more than the service promised.
//
// # The model
//
// An answer is accepted or refused. An error that the service explains with a reason of docs/reference/api.md that
// rules out an execution is "not executed". Everything else, a lost connection above all, leaves the
// outcome unknown. What no healthy service may answer (a damaged history, an outcome that cannot be read, a
// bug, an id that is said to have been used otherwise) is broken, and a run that has one fails.
package client

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/client"
	"licensed/messages/licensedv1"
	"licensed/test/chaos/history"
)

// Client is a client of one gateway. It is safe for concurrent use.
type Client struct {
	*client.Client
	// History and Admin are the other services behind the gateway.
	History licensedv1.HistoryServiceClient
	Admin   licensedv1.AdminServiceClient
}

// New returns a client of the gateway at a URL, "http://127.0.0.1:8080", by gRPC. Close it.
func New(url string) (*Client, error) {
	c, err := client.Dial([]string{strings.TrimPrefix(url, "http://")}, client.Options{RetryRatio: -1})
	if err != nil {
		return nil, err
	}
	return &Client{c, licensedv1.NewHistoryServiceClient(c), licensedv1.NewAdminServiceClient(c)}, nil
}

// Do sends a request once.
func (c *Client) Do(ctx context.Context, in *history.Input) history.Output {
	out, err := c.send(ctx, in)
	if err != nil {
		return failed(err)
	}
	out.Outcome = history.Accepted
	return out
}

func (c *Client) send(ctx context.Context, in *history.Input) (history.Output, error) {
	switch in.Kind {
	case history.ListLicenses, history.ListDevices, history.ListDownloads:
		return c.ask(ctx, in)
	case history.Deactivate:
		r, err := c.DeactivateDevice(ctx, &licensedv1.DeactivateDeviceRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})
		if err != nil {
			return history.Output{}, err
		}
		return history.Output{Sequence: r.Sequence, Duplicate: r.Duplicate, Titles: r.ReleasedTitleIds}, nil
	case history.ChangePlan:
		r, err := c.ChangePlan(ctx, &licensedv1.ChangePlanRequest{
			CustomerId:   in.Customer,
			PlanId:       in.Plan,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})
		if err != nil {
			return history.Output{}, err
		}
		return history.Output{
			Sequence: r.Sequence, Duplicate: r.Duplicate, Plan: r.PlanId, DeviceLimit: r.DeviceLimit,
		}, nil
	}
	return c.license(ctx, in)
}

// licenseAnswer is what the commands about a licence answer.
type licenseAnswer interface {
	GetLicense() *licensedv1.License
	GetSequence() uint64
	GetDuplicate() bool
}

func (c *Client) license(ctx context.Context, in *history.Input) (history.Output, error) {
	var a licenseAnswer
	var err error
	switch in.Kind {
	case history.Acquire:
		a, err = c.AcquireLicense(ctx, &licensedv1.AcquireLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly, NewDownload: in.NewDownload,
		})
	case history.Renew:
		a, err = c.RenewLicense(ctx, &licensedv1.RenewLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})
	case history.Release:
		a, err = c.ReleaseLicense(ctx, &licensedv1.ReleaseLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})
	case history.Play:
		a, err = c.RecordPlayback(ctx, &licensedv1.RecordPlaybackRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})
	default:
		panic("client: " + string(in.Kind) + " is no request")
	}
	if err != nil {
		return history.Output{}, err
	}
	l := License(a.GetLicense())
	return history.Output{Sequence: a.GetSequence(), Duplicate: a.GetDuplicate(), License: &l}, nil
}

func (c *Client) ask(ctx context.Context, in *history.Input) (out history.Output, err error) {
	err = c.pages(func(token string) (next string, page history.Output, err error) {
		switch in.Kind {
		case history.ListLicenses:
			r, err := c.ListLicenses(ctx, &licensedv1.ListLicensesRequest{
				CustomerId: in.Customer, IncludeInactive: in.Inactive, PageToken: token,
			})
			if err != nil {
				return "", page, err
			}
			page = Licenses(r)
			page.Licenses = append(out.Licenses, page.Licenses...)
			return r.NextPageToken, page, nil
		case history.ListDevices:
			r, err := c.ListDevices(ctx, &licensedv1.ListDevicesRequest{
				CustomerId: in.Customer, PageToken: token,
			})
			if err != nil {
				return "", page, err
			}
			page = Devices(r)
			page.Devices = append(out.Devices, page.Devices...)
			return r.NextPageToken, page, nil
		}
		r, err := c.ListDownloads(ctx, &licensedv1.ListDownloadsRequest{
			CustomerId: in.Customer, TitleId: in.Title, PageToken: token,
		})
		if err != nil {
			return "", page, err
		}
		page = Downloads(r)
		page.Downloads = append(out.Downloads, page.Downloads...)
		return r.NextPageToken, page, nil
	}, &out)
	return out, err
}

// pages asks for one page after the other, and begins anew if the customer changed between two of them: only a list of
// one moment can be judged.
func (c *Client) pages(
	ask func(token string) (next string, page history.Output, err error), out *history.Output,
) error {
	for token := ""; ; {
		next, page, err := ask(token)
		switch {
		case err != nil:
			return err
		case token != "" && page.Sequence != out.Sequence:
			*out, token = history.Output{}, ""
			continue
		case next == "":
			*out = page
			return nil
		}
		*out, token = page, next
	}
}

func issued(in *history.Input) *timestamppb.Timestamp {
	if in.IssuedAt == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(in.IssuedAt))
}

// broken are the reasons that a healthy service never gives.
var broken = map[string]bool{
	licensedv1.ReasonIDReused: true, licensedv1.ReasonCorrupt: true, licensedv1.ReasonBug: true,
	licensedv1.ReasonRejected:     true,
	licensedv1.ReasonOtherHistory: true,
}

// failed tells what an error says about the outcome.
func failed(err error) history.Output {
	var refusal *client.Refusal
	var e *client.Error
	switch {
	case errors.As(err, &refusal):
		return history.Output{
			Outcome: history.Refused, Sequence: refusal.Sequence, Duplicate: refusal.Duplicate,
			Refusal: &history.Refusal{Rule: refusal.Rule.String(), Limit: refusal.Limit, Current: refusal.Current},
		}
	case !errors.As(err, &e):
		return history.Output{Reason: err.Error()}
	case broken[e.Reason], e.Reason != "" && e.Code == codes.DataLoss: // What is stored cannot be read.
		return history.Output{Outcome: history.Broken, Reason: e.Reason + ": " + e.Message}
	case e.Reason == "":
		return history.Output{Reason: e.Code.String() + ": " + e.Message}
	}
	out := history.Output{Reason: e.Reason}
	if errors.Is(err, client.ErrNotExecuted) {
		out.Outcome = history.NotExecuted
	}
	return out
}
