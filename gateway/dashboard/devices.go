package dashboard

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/gateway/auth"
	"licensed/messages/licensedv1"
)

// devicesView is the page of a customer's devices.
type devicesView struct {
	Customer    string
	Plan        string
	Limit, Used uint32
	// Removals are those of the last 365 days that count; RemovalLimit is nil where there is no limit.
	Removals     uint32
	RemovalLimit *uint32
	// Policy has the limits in force; nil if they are not known.
	Policy *licensedv1.GetNodeResponse
	// Limits are those of the plan; nil if they are not known.
	Limits *licensedv1.PlanLimits
	// Monthly is the number of downloads in the last 30 days.
	Monthly uint32
	// Grace is until when devices that do not stay may renew; nil if there are none or they may not.
	Grace *timestamppb.Timestamp
	// Binding says that the plan is exceeded and the selected devices stay.
	Binding bool
	Devices []deviceView
	Removed []deviceView
	// Merged are the ids whose downloads moved to the id of a new installation.
	Merged []deviceView
	// Exceptions are those that count.
	Exceptions []*licensedv1.Exception
	// Done says that a device was removed just now, and Ended what ended by that.
	Done  string
	Ended uint64
}

// deviceView is a device of the list.
type deviceView struct {
	*licensedv1.DeviceState
	// Downloads are the active licences on it.
	Downloads []*licensedv1.LicenseState
	// Removal is the event of its removal; nil if that lies far back, or cannot be read.
	Removal *licensedv1.HistoryEvent
	// Effect is what its removal would cost and free; nil where it frees nothing, is refused, or was not asked.
	Effect *licensedv1.Removal
	// Refused says why it cannot be removed now.
	Refused string
}

// Label returns the name of the device, or its id if it has none.
func (v deviceView) Label() string { return cmp.Or(v.DeviceName, v.DeviceId) }

// Kind returns what the device is, for people; "" if that is not known.
func (v deviceView) Kind() string { return v.DeviceType.Words() }

// Full says that no other device may download.
func (v devicesView) Full() bool { return v.Used >= v.Limit }

// Red is the use from which on the meter is red: the limit. A meter turns red above a bound.
func (v devicesView) Red() float64 { return float64(v.Limit) - 0.5 }

// askedRemovals is the number of devices of which a page asks what their removals would cost and free.
const askedRemovals = 24

// askRemovals asks what the removal of each device with downloads would cost and free. One without frees nothing.
func (d *Dashboard) askRemovals(ctx context.Context, customer string, devices []deviceView) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	asked := 0
	for i := range devices {
		v := &devices[i]
		if len(v.Downloads) == 0 || asked == askedRemovals {
			continue
		}
		asked++
		g.Go(func() error {
			res, err := d.validateRemoval(ctx, customer, v.DeviceId)
			if isRefusal(err) {
				v.Refused, _ = problem(err)
				return nil
			}
			if err == nil {
				v.Effect = res.Removal
			}
			return err
		})
	}
	return g.Wait()
}

// validateRemoval asks the customer's owner what the removal of a device would result in; it is not executed.
func (d *Dashboard) validateRemoval(
	ctx context.Context, customer, device string,
) (*licensedv1.DeactivateDeviceResponse, error) {
	res, err := d.config.Licenses.DeactivateDevice(ctx, because("nothing is recorded",
		&licensedv1.DeactivateDeviceRequest{CustomerId: customer, DeviceId: device, ValidateOnly: true}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// isRefusal reports whether an error is the refusal of a command by a rule.
func isRefusal(err error) bool {
	code := connect.CodeOf(err)
	return err != nil && (code == connect.CodeFailedPrecondition || code == connect.CodeNotFound)
}

// devices shows the devices of a customer, as the customer sees them.
func (d *Dashboard) devices(w http.ResponseWriter, r *http.Request) error {
	customer := r.FormValue("id")
	v, err := d.devicesOf(r.Context(), customer)
	if err != nil {
		return noHistoryYet(customer, err)
	}
	if err := d.askRemovals(r.Context(), customer, v.Devices); err != nil {
		return err
	}
	// The page is of use without them.
	if node, err := d.config.Admin.GetNode(r.Context(), connect.NewRequest(&licensedv1.GetNodeRequest{})); err == nil {
		v.Policy = node.Msg
		for _, plan := range node.Msg.PolicyLimits.GetPlans() {
			if plan.PlanId == v.Plan {
				v.Limits = plan
			}
		}
	}
	d.removals(r.Context(), &v)
	v.Done = v.nameOf(r.FormValue("removed"))
	v.Ended, _ = strconv.ParseUint(r.FormValue("ended"), 10, 32) // Absent: none.
	return d.render(w, http.StatusOK, "devices", "",
		view{Title: "Devices of " + customer, Customer: customer, Section: "customers", Body: v})
}

// devicesOf returns the devices of a customer, those in use first by their last download.
func (d *Dashboard) devicesOf(ctx context.Context, customer string) (v devicesView, err error) {
	res, err := d.state(ctx, Selection{Customer: customer}, 0)
	if err != nil {
		return v, err
	}
	s := res.State
	v = devicesView{Customer: customer, Plan: s.PlanId, Limit: s.DeviceLimit, Used: s.DevicesInUse,
		Removals: s.Deactivations, RemovalLimit: s.DeactivationLimit,
		Binding: s.SelectionBinds && s.DevicesInUse > s.DeviceLimit, Monthly: s.MonthlyDownloads,
		Grace: s.GraceUntil, Exceptions: s.Exceptions}
	for _, device := range s.Devices {
		view := deviceView{DeviceState: device}
		for _, l := range s.Licenses {
			if l.Active && l.DeviceId == device.DeviceId {
				view.Downloads = append(view.Downloads, l)
			}
		}
		switch {
		case device.Active:
			v.Devices = append(v.Devices, view)
		case device.MergedInto != "":
			v.Merged = append(v.Merged, view)
		case everActive(device):
			v.Removed = append(v.Removed, view)
		}
	}
	// Devices in use that were never downloaded to come last, in the order of the state.
	slices.SortStableFunc(v.Devices, func(a, b deviceView) int {
		return b.LastDownloadAt.AsTime().Compare(a.LastDownloadAt.AsTime())
	})
	return v, nil
}

// removalEvents is the number of events, from the last one back, among which those of removals are looked for.
const removalEvents = 1000

// removals adds the events of the removals of devices, which have who removed them. The page is of use without.
func (d *Dashboard) removals(ctx context.Context, v *devicesView) {
	left := make(map[string]*deviceView)
	for i := range v.Removed {
		left[v.Removed[i].DeviceId] = &v.Removed[i]
	}
	if len(left) == 0 {
		return
	}
	_, _ = d.list(ctx, &licensedv1.ListEventsRequest{CustomerId: v.Customer, NewestFirst: true, Limit: removalEvents},
		func(i *licensedv1.HistoryItem) error {
			if e := i.GetEvent(); left[e.GetAggregateId()] != nil && e.Event == "DeviceDeactivated" {
				left[e.AggregateId].Removal = e
				if delete(left, e.AggregateId); len(left) == 0 {
					return io.EOF
				}
			}
			return nil
		})
}

// removeView asks whether a device is to be removed.
type removeView struct {
	Customer, Device string
	// Name is that of the device, or its id.
	Name string
	// Ends are the titles whose licences will end.
	Ends []string
	// Removal is what it costs and frees; nil if the device is removed already.
	Removal *licensedv1.Removal
	// Refused says why it cannot be removed.
	Refused string
	// Command is the id under which it will be removed, so that sending the form twice removes once.
	Command string
	// Reason says that one must be stated.
	Reason bool
}

// askRemoval asks the customer's owner the result that the removal of a device would have, and then the operator that
// asked for it whether that is meant.
func (d *Dashboard) askRemoval(w http.ResponseWriter, r *http.Request) error {
	// The id of the command is made here, and goes with the form.
	v := removeView{
		Customer: r.FormValue("id"), Device: r.FormValue("device"), Command: "dashboard-" + d.config.NewID(),
		Reason: d.access.guarded(),
	}
	// Validated without being executed: what the owner would answer now, and may no
	// longer answer when the form is sent.
	res, err := d.validateRemoval(r.Context(), v.Customer, v.Device)
	switch {
	case err == nil:
		v.Ends, v.Removal = res.ReleasedTitleIds, res.Removal
	// A refusal is an answer to the question, and is shown on the page.
	case isRefusal(err):
		v.Refused, _ = problem(err)
	default:
		return err
	}
	devices, _ := d.devicesOf(r.Context(), v.Customer) // The page is of use without the name.
	v.Name = devices.nameOf(v.Device)
	return d.render(w, http.StatusOK, "remove", "",
		view{Title: "Remove " + v.Name, Customer: v.Customer, Section: "customers", Body: v})
}

// nameOf returns the name of a device for people: its id if it has none, or is not among them.
func (v devicesView) nameOf(device string) string {
	for _, list := range [][]deviceView{v.Devices, v.Removed, v.Merged} {
		for _, view := range list {
			if view.DeviceId == device {
				return view.Label()
			}
		}
	}
	return device
}

// because returns a request with the reason for it.
func because[M any](reason string, m *M) *connect.Request[M] {
	r := connect.NewRequest(m)
	r.Header().Set(auth.ReasonHeader, url.PathEscape(reason))
	return r
}

// removeDevice removes a device. The form has the command's id, so that a form that is
// sent twice, or again after an error, removes once.
func (d *Dashboard) removeDevice(w http.ResponseWriter, r *http.Request) error {
	customer, device, command := r.PostFormValue("id"), r.PostFormValue("device"), r.PostFormValue("command")
	res, err := d.config.Licenses.DeactivateDevice(r.Context(), because(r.PostFormValue("reason"),
		&licensedv1.DeactivateDeviceRequest{CustomerId: customer, DeviceId: device, CommandId: command}))
	if err != nil {
		return err
	}
	d.config.Logger.Info("dashboard: device removed", "customer", customer, "device", device,
		"ended", strings.Join(res.Msg.ReleasedTitleIds, " "), "sequence", res.Msg.Sequence, "command", command, "from",
		r.RemoteAddr)
	// After a redirect, loading the page again does not send the form again.
	q := url.Values{"id": {customer}, "removed": {device}, "ended": {fmt.Sprint(len(res.Msg.ReleasedTitleIds))}}
	http.Redirect(w, r, Path+"devices?"+q.Encode(), http.StatusSeeOther)
	return nil
}
