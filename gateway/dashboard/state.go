package dashboard

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// stateView is the state of a customer, compared with the state before.
type stateView struct {
	Plan   []cell // plan, its limit, devices in use
	Tables []table
	// Changes in words.
	Changes []string
	// Compared says that there was something to compare with.
	Compared bool
}

// table of a state.
type table struct {
	Name, One string
	Columns   []column
	Rows      []row
	// Empty says what it means that there are none. A table without rows and without this is not shown.
	Empty string
}

// column of a table; Right aligns numbers.
type column struct {
	Name  string
	Right bool
}

// row of a table.
type row struct {
	Key   string
	Cells []cell
	// Mark is new, changed, gone or nothing.
	Mark string
	// Ended says that it is of something that ended.
	Ended bool
	// Device and Title name a licence that can be explained, at WhyLink.
	Device, Title, WhyLink string
}

// Past returns what ended and is not marked as a change, to be shown apart; nil if nothing did.
func (t table) Past() *table { return t.part(true) }

// Present returns the rest.
func (t table) Present() *table { return t.part(false) }

func (t table) part(past bool) *table {
	rows := t.Rows
	t.Rows = nil
	for _, r := range rows {
		if past == (r.Ended && r.Mark == "") {
			t.Rows = append(t.Rows, r)
		}
	}
	if past && len(t.Rows) == 0 {
		return nil
	}
	return &t
}

// explained adds the addresses of the explanations of licences.
func (v *stateView) explained(s Selection) {
	for i := range v.Tables {
		t := &v.Tables[i]
		for j := range t.Rows {
			if r := &t.Rows[j]; r.Device != "" {
				r.WhyLink = s.WhyLink(r.Device, r.Title)
			}
		}
	}
}

// cell of a row, with the name of its column for narrow screens.
type cell struct {
	Name, Text string
	// Was is what it said before, where that is something else.
	Was     string
	Changed bool
	Right   bool
}

// compare makes the tables of a state and marks what differs from the one before, if that
// is known. Rows are matched by their keys.
func compare(before, now *licensedv1.CustomerState) stateView {
	v := stateView{Plan: planOf(now), Tables: tablesOf(now), Compared: before != nil}
	if before == nil {
		return v
	}
	if before.CustomerId != "" { // Not the nothing before the first event.
		for i, was := range planOf(before) {
			if c := &v.Plan[i]; c.Text != was.Text {
				c.Was, c.Changed = was.Text, true
				v.Changes = append(v.Changes, fmt.Sprintf("%s: %s, was %s", c.Name, c.Text, was.Text))
			}
		}
	}
	// The tables of both states are made by one function, so that they have the same
	// order and columns.
	for i, was := range tablesOf(before) {
		v.Changes = append(v.Changes, v.Tables[i].mark(was)...)
	}
	return v
}

// mark marks what differs from the same table before, and returns the differences in
// words. Rows that are gone are appended, so that they can be shown.
func (t *table) mark(before table) (changes []string) {
	was := make(map[string]row, len(before.Rows))
	for _, r := range before.Rows {
		was[r.Key] = r
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		former, ok := was[r.Key]
		delete(was, r.Key)
		if !ok {
			r.Mark = "new"
			changes = append(changes, fmt.Sprintf("%s %s: new", t.One, r.Key))
			continue
		}
		for j := range r.Cells {
			c := &r.Cells[j]
			if c.Text == former.Cells[j].Text {
				continue
			}
			r.Mark, c.Changed, c.Was = "changed", true, former.Cells[j].Text
			changes = append(changes, fmt.Sprintf("%s %s: %s %s, was %s", t.One, r.Key, c.Name, c.Text, c.Was))
		}
	}
	// Rows that remain in the map had no equal now; the order is the former one.
	for _, r := range before.Rows {
		if _, gone := was[r.Key]; gone {
			r.Mark = "gone"
			t.Rows = append(t.Rows, r)
			changes = append(changes, fmt.Sprintf("%s %s: no longer known", t.One, r.Key))
		}
	}
	return changes
}

// planOf returns the figures above the tables.
func planOf(s *licensedv1.CustomerState) []cell {
	plan := s.PlanId
	if s.DefaultPlan {
		plan += " (default)"
	}
	return []cell{
		{Name: "Plan", Text: plan},
		{Name: "Devices with downloads", Text: fmt.Sprintf("%d of %d", s.DevicesInUse, s.DeviceLimit)},
		{Name: "Active licences", Text: fmt.Sprint(s.ActiveLicenses)},
		{Name: "Devices removed, 365 days", Text: fmt.Sprint(s.Deactivations)},
	}
}

// tablesOf returns all tables of a state, always in the same order, so that those of two
// states match.
func tablesOf(s *licensedv1.CustomerState) []table {
	return []table{licensesOf(s), devicesOf(s), titlesOf(s), studiosOf(s), exceptionsOf(s), allowancesOf(s)}
}

// columnsOf returns columns by their names; one that begins with > is aligned to the
// right.
func columnsOf(names ...string) []column {
	out := make([]column, len(names))
	for i, n := range names {
		if n[0] == '>' {
			out[i] = column{n[1:], true}
		} else {
			out[i] = column{n, false}
		}
	}
	return out
}

// newRow makes the cells of a row.
func (t *table) newRow(key string, texts ...string) *row {
	r := row{Key: key}
	for i, text := range texts {
		r.Cells = append(r.Cells, cell{Name: t.Columns[i].Name, Text: text, Right: t.Columns[i].Right})
	}
	t.Rows = append(t.Rows, r)
	return &t.Rows[len(t.Rows)-1]
}

// licensesOf returns the licences, active ones first.
func licensesOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Licences", One: "Licence", Empty: "No active licences.",
		Columns: columnsOf("Device", "Title", "Status", "Expires", "Acquired", ">Renewals", "Studio"),
	}
	licenses := slices.Clone(s.Licenses)
	slices.SortStableFunc(licenses, func(a, b *licensedv1.LicenseState) int {
		switch {
		case a.Active == b.Active:
			return 0
		case a.Active:
			return -1
		}
		return 1
	})
	for _, l := range licenses {
		status := "expired"
		switch {
		case l.Active:
			status = "active"
		case l.ReleasedAt != nil:
			status = "released"
		}
		r := t.newRow(l.DeviceId+"/"+l.TitleId, l.DeviceId, l.TitleId, status, day(l.ExpiresAt), day(l.AcquiredAt),
			fmt.Sprint(l.Renewals), l.StudioId)
		r.Device, r.Title = l.DeviceId, l.TitleId
		r.Ended = !l.Active
	}
	return t
}

// devicesOf returns the devices.
func devicesOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Devices", One: "Device", Empty: "No devices.",
		Columns: columnsOf("Device", "Name", "Type", "Status", ">Active licences", "Last download", "Last used"),
	}
	for _, d := range s.Devices {
		status := "active"
		switch {
		case d.MergedInto != "":
			status = "merged into " + d.MergedInto
		case !d.Active && !everActive(d):
			status = "never had a licence"
		case !d.Active:
			status = "removed"
		}
		r := t.newRow(d.DeviceId, d.DeviceId, d.DeviceName, d.DeviceType.Words(), status,
			fmt.Sprint(d.ActiveLicenses), never(d.LastDownloadAt), never(d.LastUsedAt))
		r.Ended = !d.Active
	}
	return t
}

// everActive reports whether a device had a licence, and did not only report facts.
func everActive(d *licensedv1.DeviceState) bool {
	return d.Active || d.ActivatedAt != nil || d.LastDownloadAt != nil
}

// exceptionsOf returns the exceptions that count.
func exceptionsOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Exceptions", One: "Exception",
		Columns: columnsOf("Exception", "What", "Counts until", "Granted", "Reason"),
	}
	for _, e := range s.Exceptions {
		number := fmt.Sprint(e.Number)
		t.newRow(number, number, e.Words(), day(e.Until), day(e.GrantedAt), e.Reason)
	}
	return t
}

// allowancesOf returns what is lent.
func allowancesOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Lent downloads", One: "Allowance",
		Columns: columnsOf("Allowance", "Device", "Titles", "Until", "Gateway"),
	}
	for _, a := range s.Allowances {
		number := fmt.Sprint(a.Number)
		t.newRow(number, number, a.DeviceId, strings.Join(a.TitleIds, ", "), day(a.ExpiresAt), a.GatewayId)
	}
	return t
}

// never returns a time, or "never" for none.
func never(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return day(t)
}

// titlesOf returns the use of titles that have a yearly limit.
func titlesOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Titles, last 365 days", One: "Title", Empty: "Nothing that counts against a yearly limit.",
		Columns: columnsOf("Title", ">Downloads", ">Counted playbacks"),
	}
	for _, x := range s.Titles {
		t.newRow(x.TitleId, x.TitleId, fmt.Sprint(x.Downloads), fmt.Sprint(x.CountedPlaybacks))
	}
	return t
}

// studiosOf returns the active licences by studio.
func studiosOf(s *licensedv1.CustomerState) table {
	t := table{
		Name: "Studios", One: "Studio", Empty: "No active licences of any studio.",
		Columns: columnsOf("Studio", ">Active licences"),
	}
	for _, x := range s.Studios {
		t.newRow(x.StudioId, x.StudioId, fmt.Sprint(x.ActiveLicenses))
	}
	return t
}

// named returns the devices and titles that a state knows.
func named(s *licensedv1.CustomerState) (devices, titles []string) {
	for _, d := range s.Devices {
		devices = append(devices, d.DeviceId)
	}
	for _, l := range s.Licenses {
		titles = append(titles, l.TitleId)
	}
	slices.Sort(titles)
	return devices, slices.Compact(titles)
}
