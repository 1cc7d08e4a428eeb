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
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/test/chaos/history"
)

// Client is a client of one gateway. It is safe for concurrent use.
type Client struct {
	// Licenses, History and Admin are the services behind the gateway.
	Licenses licensedv1connect.LicenseServiceClient
	History  licensedv1connect.HistoryServiceClient
	Admin    licensedv1connect.AdminServiceClient

	transport *http.Transport
}

// New returns a client of the gateway at a URL, "http://127.0.0.1:8080", by gRPC. Close it.
func New(url string) *Client {
	t := &http.Transport{
		Protocols: new(http.Protocols),
		// A peer that vanished without a word is noticed, as clients in the field should.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: t}
	return &Client{
		Licenses:  licensedv1connect.NewLicenseServiceClient(c, url, connect.WithGRPC()),
		History:   licensedv1connect.NewHistoryServiceClient(c, url, connect.WithGRPC()),
		Admin:     licensedv1connect.NewAdminServiceClient(c, url, connect.WithGRPC()),
		transport: t,
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

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
		r, err := c.Licenses.DeactivateDevice(ctx, connect.NewRequest(&licensedv1.DeactivateDeviceRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		}))
		if err != nil {
			return history.Output{}, err
		}
		return history.Output{Sequence: r.Msg.Sequence, Duplicate: r.Msg.Duplicate, Titles: r.Msg.ReleasedTitleIds}, nil
	case history.ChangePlan:
		r, err := c.Licenses.ChangePlan(ctx, connect.NewRequest(&licensedv1.ChangePlanRequest{
			CustomerId:   in.Customer,
			PlanId:       in.Plan,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		}))
		if err != nil {
			return history.Output{}, err
		}
		return history.Output{
			Sequence: r.Msg.Sequence, Duplicate: r.Msg.Duplicate, Plan: r.Msg.PlanId, DeviceLimit: r.Msg.DeviceLimit,
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
		a, err = message(c.Licenses.AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly, NewDownload: in.NewDownload,
		})))
	case history.Renew:
		a, err = message(c.Licenses.RenewLicense(ctx, connect.NewRequest(&licensedv1.RenewLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})))
	case history.Release:
		a, err = message(c.Licenses.ReleaseLicense(ctx, connect.NewRequest(&licensedv1.ReleaseLicenseRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})))
	case history.Play:
		a, err = message(c.Licenses.RecordPlayback(ctx, connect.NewRequest(&licensedv1.RecordPlaybackRequest{
			CustomerId:   in.Customer,
			DeviceId:     in.Device,
			TitleId:      in.Title,
			CommandId:    in.Command,
			IssuedAt:     issued(in),
			ValidateOnly: in.ValidateOnly,
		})))
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
			r, err := message(c.Licenses.ListLicenses(ctx, connect.NewRequest(&licensedv1.ListLicensesRequest{
				CustomerId: in.Customer, IncludeInactive: in.Inactive, PageToken: token,
			})))
			if err != nil {
				return "", page, err
			}
			page = Licenses(r)
			page.Licenses = append(out.Licenses, page.Licenses...)
			return r.NextPageToken, page, nil
		case history.ListDevices:
			r, err := message(c.Licenses.ListDevices(ctx, connect.NewRequest(&licensedv1.ListDevicesRequest{
				CustomerId: in.Customer, PageToken: token,
			})))
			if err != nil {
				return "", page, err
			}
			page = Devices(r)
			page.Devices = append(out.Devices, page.Devices...)
			return r.NextPageToken, page, nil
		}
		r, err := message(c.Licenses.ListDownloads(ctx, connect.NewRequest(&licensedv1.ListDownloadsRequest{
			CustomerId: in.Customer, TitleId: in.Title, PageToken: token,
		})))
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

func message[T any](r *connect.Response[T], err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func issued(in *history.Input) *timestamppb.Timestamp {
	if in.IssuedAt == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(in.IssuedAt))
}

// notExecuted are the reasons by which the service promises that nothing was executed.
var notExecuted = map[string]bool{
	"INVALID_REQUEST": true, "NOT_EXECUTED": true, "OVERLOADED": true, "RATE_LIMITED": true, "IMPORTING": true,
}

// broken are the reasons that a healthy service never gives.
var broken = map[string]bool{
	"COMMAND_ID_REUSED": true, "CORRUPT_HISTORY": true, "BUG": true, "REJECTED_BY_STORE": true, "OTHER_HISTORY": true,
}

// failed tells what an error says about the outcome.
func failed(err error) history.Output {
	out := history.Output{Reason: connect.CodeOf(err).String() + ": " + err.Error()}
	var e *connect.Error
	if !errors.As(err, &e) {
		return out
	}
	for _, d := range e.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		switch v := v.(type) {
		case *licensedv1.Refusal:
			out.Outcome, out.Sequence, out.Duplicate = history.Refused, v.Sequence, v.Duplicate
			out.Refusal = &history.Refusal{Rule: v.Rule.String(), Limit: v.Limit, Current: v.Current}
			out.Reason = ""
			return out
		case *errdetails.ErrorInfo:
			if notExecuted[v.Reason] {
				out.Outcome = history.NotExecuted
			} else if broken[v.Reason] {
				out.Outcome = history.Broken
			}
			if e.Code() == connect.CodeDataLoss { // Whatever the reason: what is stored cannot be read.
				out.Outcome = history.Broken
			}
			if v.Reason != "REFUSED" {
				out.Reason = v.Reason
			}
			if out.Outcome == history.Broken {
				out.Reason += ": " + e.Message()
			}
		}
	}
	return out
}
