package license

import (
	"fmt"

	"licensed/messages/licensedv1"
)

// exceptionName names an exception at the beginning of a sentence.
func exceptionName(e *licensedv1.Exception) string { return fmt.Sprintf("Exception %d", e.GetNumber()) }

// excepted reports whether an exception may matter to the licence: it is about another title, device or studio
// otherwise.
func (x *Explainer) excepted(e *licensedv1.Exception) bool {
	switch k := e.GetKind().(type) {
	case *licensedv1.Exception_Limit:
		l := x.license()
		return (k.Limit.GetTitleId() == "" || k.Limit.GetTitleId() == x.title) &&
			(k.Limit.GetStudioId() == "" || l == nil || k.Limit.GetStudioId() == x.state.studioOf(l))
	case *licensedv1.Exception_Use:
		return k.Use.GetTitleId() == x.title
	default:
		return false
	}
}

// tellExceptions adds to the last step which exceptions allowed it.
func (x *Explainer) tellExceptions(event any) {
	v, ok := event.(interface{ GetExceptions() []uint64 })
	if !ok || len(v.GetExceptions()) == 0 || len(x.steps) == 0 {
		return
	}
	last := x.steps[len(x.steps)-1]
	last.kind = "" // told as a step of its own
	for _, n := range v.GetExceptions() {
		why := ""
		for _, e := range x.state.exceptions() {
			if e.GetNumber() == n {
				why = fmt.Sprintf(" (%s): %s", e.GetReason(), e.Words())
			}
		}
		last.Text += fmt.Sprintf(" Only exception %d allowed it%s.", n, why)
	}
}

// tellMerge explains the merge of a device, by the licence before it and that of the state, after it.
func (x *Explainer) tellMerge(e *Recorded, ex *licensedv1.Exception, before *license) {
	m, l := ex.GetMerge(), x.license()
	by := fmt.Sprintf("exception %d (%s)", ex.GetNumber(), ex.GetReason())
	switch {
	case m.GetOldDeviceId() == x.device && before != nil && l == nil:
		x.moved = x.add(e, changed, "", "Moved to device %s, into which this device was merged by %s.",
			m.GetNewDeviceId(), by)
	case m.GetOldDeviceId() == x.device:
		x.add(e, aside, "", "This device was merged into device %s by %s.", m.GetNewDeviceId(), by)
	case m.GetNewDeviceId() != x.device:
	case l == nil || before != nil && l.acquired == before.acquired && l.expires == before.expires &&
		l.released == before.released:
		x.add(e, aside, "", "Device %s was merged into this device by %s.", m.GetOldDeviceId(), by)
	default:
		x.acquired = x.add(e, changed, "", "Moved here from device %s, which was merged into this device by %s: "+
			"acquired at %s, ends at %s.", m.GetOldDeviceId(), by, clockOf(l.acquired), clockOf(l.end()))
		x.renewed, x.released, x.moved = nil, nil, nil
		if l.expires <= e.Time.UnixMilli() {
			x.expiry = l.expires
		}
	}
}
