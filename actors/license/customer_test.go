package license

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/messages/licensedv1"
)

// checkCustomer holds what GetCustomer says of each limit against the rule: none is left if and only if the rule
// refuses another, until the time that it says.
func (r *trial) checkCustomer() {
	r.t.Helper()
	whole := r.customerBy(0)
	joined := &licensedv1.GetCustomerResponse{}
	q := &licensedv1.GetCustomer{PageSize: 3}
	for pages := 0; pages == 0 || q.PageToken != ""; pages++ {
		page := r.query(queryCustomer(q)).(*licensedv1.GetCustomerResponse)
		if n := len(page.Devices) + len(page.Licenses) + len(page.Titles) + len(page.Studios); n > 3 {
			r.t.Fatalf("a page of %d entries", n)
		}
		q.PageToken, page.NextPageToken = page.NextPageToken, ""
		// All but the lists is the same on each page.
		page.Devices = append(joined.Devices, page.Devices...)
		page.Licenses = append(joined.Licenses, page.Licenses...)
		page.Titles = append(joined.Titles, page.Titles...)
		page.Studios = append(joined.Studios, page.Studios...)
		joined = page
	}
	if !proto.Equal(joined, whole) {
		r.t.Fatalf("pages are\n%v\nthe whole is\n%v", joined, whole)
	}
	refuses := func(rule licensedv1.Rule, c *licensedv1.Command) func(int64) bool {
		return func(at int64) bool { return r.violates(c, rule, at) }
	}
	if d := whole.DevicesInUse; d.Limit != nil && d.Used < d.GetLimit()-d.GetLeft() {
		d.Used = d.GetLimit() - d.GetLeft() // Places may be kept for devices that stay and are not in use.
	}
	r.checkQuota(whole.DevicesInUse, refuses(licensedv1.Rule_RULE_DEVICE_LIMIT, acquire("another", "another")))
	r.checkQuota(whole.Deactivations, func(at int64) bool { // No device may be known by then.
		limit := view{now: at, policy: r.kind.Policy(), state: r.ended()}.deactivationLimit()
		return !limit.ok()
	})
	r.checkQuota(whole.MonthlyDownloads, refuses(licensedv1.Rule_RULE_MONTHLY_LIMIT, acquire("another", "another")))
	for _, d := range whole.Devices {
		if d.Active {
			r.checkQuota(d.Licenses, refuses(licensedv1.Rule_RULE_DEVICE_TITLES, acquire(d.DeviceId, "another")))
		}
	}
	for _, t := range whole.Titles {
		r.checkQuota(t.Yearly, refuses(licensedv1.Rule_RULE_YEARLY_LIMIT, acquire("another", t.TitleId)))
		for _, s := range whole.Studios {
			if s.StudioId == t.StudioId {
				r.checkQuota(s.Licenses, refuses(licensedv1.Rule_RULE_STUDIO_LIMIT, acquire("another", t.TitleId)))
			}
		}
	}
}

func queryCustomer(q *licensedv1.GetCustomer) *licensedv1.Query {
	return &licensedv1.Query{Query: &licensedv1.Query_GetCustomer{GetCustomer: q}}
}

func (r *trial) customerBy(size uint32) *licensedv1.GetCustomerResponse {
	r.t.Helper()
	return r.query(queryCustomer(&licensedv1.GetCustomer{PageSize: size})).(*licensedv1.GetCustomerResponse)
}

// checkQuota compares a quota with whether the rule refuses another now, at the time that the quota names, and before.
func (r *trial) checkQuota(q *licensedv1.Quota, refuses func(at int64) bool) {
	r.t.Helper()
	used := q.Limit != nil && q.GetLeft() == 0
	if refuses(r.now.UnixMilli()) != used {
		r.t.Fatalf("at %v the rule refuses: %t, and the quota is %v", r.now, !used, q)
	}
	if (q.Limit == nil) != (q.Left == nil) || q.GetLeft() != q.GetLimit()-min(q.Used, q.GetLimit()) {
		r.t.Fatalf("quota %v", q)
	}
	if q.NextAt == nil {
		// By an exception the limit may be higher than it is later.
		if used && q.GetLimit() > 0 && r.live.(*aggregate).state.rare == nil {
			r.t.Fatalf("quota %v has no time", q)
		}
		return
	}
	at := q.NextAt.AsTime().UnixMilli()
	if !used || refuses(at) || !refuses(at-1) {
		r.t.Fatalf("quota %v: the rule refuses at its time: %t, and before: %t", q, refuses(at), refuses(at-1))
	}
}

// TestPageOfCustomer: entries of all lists count together.
func TestPageOfCustomer(t *testing.T) {
	r := newTrial(t, somePolicies[0], time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, device := range someDevices[:2] {
		for _, title := range []string{"x1", "x2", "x3"} {
			r.execute(acquire(device, title))
		}
	}
	res := r.customerBy(7)
	if len(res.Devices) != 2 || len(res.Licenses) != 5 || len(res.Titles) != 0 || res.NextPageToken == "" {
		t.Errorf("a page of 7 has %v", res)
	}
}
