package license

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// Downloads is the answer to ListDownloads.
type Downloads struct {
	// Response without customer id and sequence.
	Response *licensedv1.ListDownloadsResponse
	// Older says that the question goes further back than the state: there may be downloads that are not
	// listed, and the list is to be taken from history instead ([DownloadsFromHistory]), from Since on.
	// Whether another download is allowed, and when, is right all the same.
	Older bool
	// Since is the time from which downloads were asked for.
	Since time.Time
}

// Query answers *licensedv1.ListLicenses with *licensedv1.ListLicensesResponse, ListDevices with
// *licensedv1.ListDevicesResponse, ListDownloads with *Downloads, GetCustomer with *licensedv1.GetCustomerResponse, and
// DescribeState with *licensedv1.CustomerState, as of a time and under a policy.
// Answers are without customer ids and sequence and share no memory with the state.
func Query(now time.Time, p *policy.Policy, s *State, q *licensedv1.Query) (any, error) {
	v := view{now: now.UnixMilli(), policy: p, state: s}.ended()
	switch q := q.GetQuery().(type) {
	case *licensedv1.Query_ListLicenses:
		return v.listLicenses(q.ListLicenses)
	case *licensedv1.Query_ListDownloads:
		return v.listDownloads(q.ListDownloads)
	case *licensedv1.Query_ListDevices:
		return v.listDevices(q.ListDevices)
	case *licensedv1.Query_GetCustomer:
		return v.customer(q.GetCustomer)
	case *licensedv1.Query_DescribeState:
		return v.describe(), nil
	default:
		return nil, fmt.Errorf("license: no query, but %T", q)
	}
}

// listLicenses lists licences by device and title.
func (v view) listLicenses(q *licensedv1.ListLicenses) (*licensedv1.ListLicensesResponse, error) {
	var all []*license // Those of the page only are turned into messages.
	for i := range v.state.licenses {
		l := &v.state.licenses[i]
		if !l.forgotten(v.now) && (l.active(v.now) || q.GetIncludeInactive()) {
			all = append(all, l)
		}
	}
	key := func(l *license) place {
		return place{device: v.state.devices[l.device].id, title: v.state.titles[l.title]}
	}
	slices.SortFunc(all, func(a, b *license) int { return key(a).compare(key(b)) })
	entries, next, err := page(licenseList, all, q, key)
	if err != nil {
		return nil, err
	}
	res := &licensedv1.ListLicensesResponse{NextPageToken: next}
	for _, l := range entries {
		res.Licenses = append(res.Licenses, v.licenseMessage(l))
	}
	return res, nil
}

// listDevices lists devices by id.
func (v view) listDevices(q *licensedv1.ListDevices) (*licensedv1.ListDevicesResponse, error) {
	res := &licensedv1.ListDevicesResponse{}
	plan, devices := v.devicesBound()
	res.PlanId, res.DeviceLimit, res.Exceptions = plan, uint32(devices.limit), v.listExceptions()
	res.PlanChangedAt = optionalTime(v.state.choice.at)
	for i := range v.state.devices {
		if v.state.forgottenDevice(i, v.now) {
			continue
		}
		res.Devices = append(res.Devices, v.deviceMessage(i))
	}
	slices.SortFunc(res.Devices, func(a, b *licensedv1.Device) int { return strings.Compare(a.DeviceId, b.DeviceId) })
	return res, PageDevices(res, q)
}

// deviceMessage returns a device of the API.
func (v view) deviceMessage(i int) *licensedv1.Device {
	d := &v.state.devices[i]
	return &licensedv1.Device{
		DeviceId: d.id, Active: !d.deactivated, ActiveLicenses: v.activeOn(i), Selected: d.selected,
		LastDownloadAt: optionalTime(d.downloaded), ActivatedAt: optionalTime(d.activation.at),
		MergedInto: v.merged(d.id), DeviceName: d.name, DeviceType: d.kind,
	}
}

// licenseMessage returns a licence of the API, without the customer.
func (v view) licenseMessage(l *license) *licensedv1.License {
	return &licensedv1.License{
		DeviceId:   v.state.devices[l.device].id,
		TitleId:    v.state.titles[l.title],
		StudioId:   v.state.studioOf(l),
		AcquiredAt: timestamp(l.acquired),
		ExpiresAt:  timestamp(l.expires),
		Released:   l.released != 0,
		Renewals:   l.renewals,
		PlayHours:  optionalHours(l.playHours),
	}
}

// optionalHours returns a number of hours as messages have it; nil for 0.
func optionalHours(n uint32) *uint32 {
	if n == 0 {
		return nil
	}
	return &n
}

// listDownloads lists the downloads and counted playbacks of a title, or of all, that the state knows, the oldest
// first. Of one title it says whether another is allowed.
func (v view) listDownloads(q *licensedv1.ListDownloads) (*Downloads, error) {
	// The window excludes the millisecond at its beginning.
	since := v.now - window + 1
	if q.GetSince() != nil {
		since = ceilMilli(q.GetSince())
	}
	res := &licensedv1.ListDownloadsResponse{TitleId: q.GetTitleId()}
	// The state has the uses of one window only.
	out := &Downloads{Response: res, Older: since <= v.now-window, Since: time.UnixMilli(since).UTC()}
	s := v.state
	for i := range s.licenses {
		l := &s.licenses[i]
		if q.GetTitleId() != "" && s.titles[l.title] != q.GetTitleId() {
			continue
		}
		for _, u := range l.uses {
			if at := u.at(); at >= since && at > v.now-window {
				res.Downloads = append(res.Downloads, &licensedv1.Download{
					DeviceId: s.devices[l.device].id, TitleId: s.titles[l.title], At: timestamp(at),
					Playback: u.playback(),
				})
			}
		}
		// More uses than are remembered: the oldest may be missing.
		out.Older = out.Older || l.dropped(since)
	}
	sortDownloads(res.Downloads)
	if q.GetTitleId() == "" {
		return out, PageDownloads(res, q)
	}
	use := v.yearlyQuota(s.title(q.GetTitleId()), q.GetTitleId())
	res.Limit, res.Allowed, res.NextAllowedAt = use.Limit, use.Left == nil || use.GetLeft() > 0, use.NextAt
	return out, PageDownloads(res, q)
}

// dropped says whether downloads or counted playbacks since then may have left the state because they were too many.
func (l *license) dropped(since int64) bool {
	var n, oldest [2]int64 // downloads, playbacks
	for _, u := range slices.Backward(l.uses) {
		sort := u & 1
		n[sort]++
		oldest[sort] = u.at()
	}
	return n[0] >= maxCounted && since <= oldest[0] || n[1] >= maxCounted && since <= oldest[1]
}

// ceilMilli returns the first millisecond that is not before t.
func ceilMilli(t *timestamppb.Timestamp) int64 {
	at := t.AsTime()
	ms := at.UnixMilli()
	if at.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// sortDownloads orders downloads by time, device and title.
func sortDownloads(d []*licensedv1.Download) {
	slices.SortStableFunc(d, func(a, b *licensedv1.Download) int {
		return cmp.Or(a.At.AsTime().Compare(b.At.AsTime()), strings.Compare(a.DeviceId, b.DeviceId),
			strings.Compare(a.TitleId, b.TitleId))
	})
}

// DownloadsFromHistory returns the downloads and counted playbacks of a title, "" for all, since a time, oldest first,
// from the events of a customer's history, decoded. Errors: the first of the iteration.
func DownloadsFromHistory(
	title string, since time.Time, events iter.Seq2[actors.Event, error],
) ([]*licensedv1.Download, error) {
	var downloads []*licensedv1.Download
	for e, err := range events {
		if err != nil {
			return nil, err
		}
		out := &licensedv1.Download{}
		switch v := e.Value.(type) {
		case *licensedv1.ExceptionGranted:
			downloads = excepted(downloads, v.GetException())
			continue
		case *licensedv1.ExceptionWithdrawn:
			if u := v.GetException().GetUse(); u != nil && !u.GetUsedAt().AsTime().Before(since) &&
				(title == "" || title == u.GetTitleId()) {
				downloads = append(downloads, forgiven(u))
			}
			continue
		case *licensedv1.TitleDownloaded, *licensedv1.AllowanceRedeemed:
		case *licensedv1.TitlePlayed:
			if out.Playback = v.GetCounted(); !out.Playback {
				continue
			}
		default:
			continue
		}
		at := OccurredAt(e)
		if at.Before(since) || occurrenceOf(e.Value).GetVerdict() != licensed {
			continue
		}
		if out.DeviceId, out.TitleId, _ = strings.Cut(e.AggregateID, "/"); title == "" || out.TitleId == title {
			out.At = timestamppb.New(at)
			downloads = append(downloads, out)
		}
	}
	sortDownloads(downloads)
	return downloads, nil
}

// forgiven returns a use that was forgiven.
func forgiven(u *licensedv1.ForgivenUse) *licensedv1.Download {
	return &licensedv1.Download{
		DeviceId: u.GetDeviceId(), TitleId: u.GetTitleId(), At: u.GetUsedAt(), Playback: u.GetPlayback(),
	}
}

// excepted applies an exception to a list: one download less if it is forgiven, and those of a device that was merged
// are the other's.
func excepted(downloads []*licensedv1.Download, e *licensedv1.Exception) []*licensedv1.Download {
	if u := e.GetUse(); u != nil {
		i := slices.IndexFunc(downloads, func(d *licensedv1.Download) bool { return proto.Equal(d, forgiven(u)) })
		if i >= 0 {
			downloads = slices.Delete(downloads, i, i+1)
		}
	}
	for _, d := range downloads {
		if m := e.GetMerge(); m != nil && d.DeviceId == m.GetOldDeviceId() {
			d.DeviceId = m.GetNewDeviceId()
		}
	}
	return downloads
}
