package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// TestDegraded: what is not current, or not executed yet, is reported in words.
func TestDegraded(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	p := &program{stdout: &out, now: func() time.Time { return now }}
	p.printStale(nil)
	if out.Len() > 0 {
		t.Errorf("of a current answer: %s", &out)
	}
	s := &licensedv1.Stale{
		AsOf: timestamppb.New(now.Add(-time.Minute)), Source: licensedv1.StaleSource_STALE_SOURCE_FORMER_ANSWER,
	}
	p.printStale(s)
	s.Source = licensedv1.StaleSource_STALE_SOURCE_STORE
	p.printStale(s)
	want := "STALE: as of 2026-11-30 11:59:00 UTC (1m0s ago), as answered before; the node of the customer cannot be " +
		"reached\nSTALE: as of 2026-11-30 11:59:00 UTC (1m0s ago), read from the store; the node of the customer " +
		"cannot be reached\n"
	if out.String() != want {
		t.Errorf("%s, want %s", &out, want)
	}
	out.Reset()
	err := printReply(p, issued{commandID: "c1"}, &licensedv1.SyncDeviceResponse{
		DeviceId: "iphone", CustomerId: "Bayley", Provisional: &licensedv1.Provisional{},
	}, func(*licensedv1.SyncDeviceResponse, tense) string { return "synced" })
	if err != nil || !strings.Contains(out.String(), "command c1, PROVISIONAL: not executed yet") {
		t.Errorf("%s, %v", &out, err)
	}
}
