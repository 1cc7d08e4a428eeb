package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/history"
)

// Recorded lists a customer's whole history, hot and archived.
func (c *Client) Recorded(ctx context.Context, customer string) (*history.Customer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.History.ListEvents(ctx, &licensedv1.ListEventsRequest{CustomerId: customer})
	if err != nil {
		return nil, err
	}
	out := &history.Customer{ID: customer}
	ended := false
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for _, item := range m.Items {
			if g := item.GetGap(); g != nil {
				out.Gaps = append(out.Gaps, fmt.Sprintf("events %d to %d: %s", g.FromSequence, g.ToSequence, g.Message))
				continue
			}
			e, err := Event(item.GetEvent())
			if err != nil {
				return nil, err
			}
			out.Events = append(out.Events, e)
		}
		if m.End != nil {
			out.Head, ended = m.End.HeadSequence, true
		}
	}
	if !ended {
		return nil, fmt.Errorf("the history of %s was cut off", customer)
	}
	return out, nil
}

// Event returns an event as histories have it.
func Event(e *licensedv1.HistoryEvent) (history.Event, error) {
	out := history.Event{
		Sequence: e.Sequence, Epoch: e.Epoch, Row: e.RowId, Aggregate: e.AggregateId, Name: e.Event,
		Time:  millis(e.EventTime),
		Order: e.EventOrderNumber, Command: e.CommandId, Index: e.CommandIndex, Count: e.CommandCount,
		Archived: e.Tier == licensedv1.Tier_TIER_ARCHIVE, Problem: e.Problem,
	}
	if e.Data == nil {
		if out.Problem == "" {
			out.Problem = "it says nothing"
		}
		return out, nil
	}
	m, err := e.Data.UnmarshalNew()
	if err != nil {
		return out, fmt.Errorf("event %d: %w", e.Sequence, err)
	}
	if name := string(m.ProtoReflect().Descriptor().Name()); name != e.Event {
		out.Problem = "it says what a " + name + " does"
	}
	switch m := m.(type) {
	case *licensedv1.LicenseAcquired:
		out.License = &history.License{Studio: m.StudioId, Acquired: out.Time, Expires: m.ExpiresAtMs}
	case *licensedv1.LicenseRenewed:
		out.License = terms(m.License)
	case *licensedv1.LicenseReleased:
		out.License = terms(m.License)
	case *licensedv1.LicenseShortened:
		out.License = terms(m.License)
	case *licensedv1.TitleDownloaded:
		out.License = terms(m.License)
	case *licensedv1.TitlePlayed:
		out.License, out.Counted = terms(m.License), m.Counted
	case *licensedv1.PlanChanged:
		out.Plan, out.Limit = m.PlanId, m.DeviceLimit
	case *licensedv1.CommandAccepted:
		out.License = terms(m.License)
		out.Device = m.DeviceId
		out.Title = m.TitleId
		out.Plan = m.PlanId
		out.Limit = m.DeviceLimit
	case *licensedv1.CommandRefused:
		out.Refusal = &history.Refusal{Rule: m.Rule.String(), Limit: m.Limit, Current: m.Current}
		out.Device, out.Title, out.Plan = m.DeviceId, m.TitleId, m.PlanId
	}
	return out, nil
}

func terms(l *licensedv1.LicenseTerms) *history.License {
	if l == nil {
		return nil
	}
	return &history.License{
		Studio:   l.StudioId,
		Acquired: l.AcquiredAtMs,
		Expires:  l.ExpiresAtMs,
		Renewals: l.Renewals,
		Released: l.Released,
	}
}

// Verify asks the service to check all that is stored of a customer, whose history ends at head, and returns
// what it finds wrong. It is an error if it did not check all.
func (c *Client) Verify(ctx context.Context, customer string, head uint64) ([]string, error) {
	// Of a customer who is not in memory, there is no live state to compare.
	if _, err := c.ListDevices(ctx, &licensedv1.ListDevicesRequest{CustomerId: customer}); err != nil {
		return nil, err
	}
	stream, err := c.Admin.VerifyCustomer(ctx, &licensedv1.VerifyCustomerRequest{CustomerId: customer})
	if err != nil {
		return nil, err
	}
	var findings []string
	var report *licensedv1.CustomerReport
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if m.Report != nil {
			report = m.Report
		}
		for _, f := range m.Report.GetFindings() {
			if f.Severity == licensedv1.Severity_SEVERITY_ERROR {
				findings = append(findings, f.Check+": "+f.Message)
			}
		}
	}
	switch {
	case report == nil:
		return nil, fmt.Errorf("the verification of %s was cut off", customer)
	case !report.LiveStateCompared:
		return nil, fmt.Errorf("the verification of %s did not compare the live state", customer)
	case report.HeadSequence != head || report.Events != head:
		return nil, fmt.Errorf("the verification of %s read %d of %d events, the history has %d",
			customer, report.Events, report.HeadSequence, head)
	}
	return findings, nil
}

// Archive moves the closed part of a customer's history to the archive.
func (c *Client) Archive(ctx context.Context, customer string) error {
	_, err := c.Admin.ArchiveCustomer(ctx, &licensedv1.ArchiveCustomerRequest{CustomerId: customer, All: true})
	return err
}
