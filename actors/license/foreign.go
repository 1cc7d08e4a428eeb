package license

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"licensed/actors/license/ids"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// What comes from other processes and other clusters is checked here by the rules of the API: it did not come
// through this process's gateway, and what is recorded is read forever.

// CheckCustomer says what is wrong with a customer's id.
func CheckCustomer(id string) error { return named("customer id", id, ids.MaxBytes) }

// CheckCommand says what is wrong with a command and its id, which one that only validates may leave out.
func CheckCommand(id string, validateOnly bool, payload any) error {
	if id != "" || !validateOnly {
		if err := named("command id", id, ids.MaxCommandBytes); err != nil {
			return err
		}
	}
	command, ok := payload.(*licensedv1.Command)
	if !ok {
		return fmt.Errorf("no command, but a %T", payload)
	}
	if err := checkName(command.GetDeviceName()); err != nil {
		return err
	}
	switch c := command.GetCommand().(type) {
	case *licensedv1.Command_AcquireLicense:
		return checkAcquire(c.AcquireLicense)
	case *licensedv1.Command_RenewLicense:
		return checkPair(c.RenewLicense)
	case *licensedv1.Command_ReleaseLicense:
		return checkPair(c.ReleaseLicense)
	case *licensedv1.Command_RecordPlayback:
		return checkPair(c.RecordPlayback)
	case *licensedv1.Command_DeactivateDevice:
		return named("device id", c.DeactivateDevice.GetDeviceId(), ids.MaxBytes)
	case *licensedv1.Command_ChangePlan:
		return named("plan id", c.ChangePlan.GetPlanId(), ids.MaxBytes)
	case *licensedv1.Command_SyncDevice:
		return checkSync(c.SyncDevice)
	case *licensedv1.Command_SelectDevices:
		return checkDevices(c.SelectDevices.GetDeviceIds(), 1, MaxSelected)
	case *licensedv1.Command_LendAllowance:
		return checkLend(c.LendAllowance)
	case *licensedv1.Command_ReturnAllowance:
		return checkReturn(c.ReturnAllowance)
	case *licensedv1.Command_GrantException:
		return CheckGrant(c.GrantException)
	case *licensedv1.Command_WithdrawException:
		return CheckWithdraw(c.WithdrawException)
	}
	return fmt.Errorf("no command, but a %T", command.GetCommand())
}

// MaxSelected is the number of devices that SelectDevices takes at most: as many as a plan can have.
const MaxSelected = 1000

// checkDevices checks a list of device ids.
func checkDevices(list []string, least, most int) error {
	if len(list) < least || len(list) > most {
		return fmt.Errorf("%d device ids, want %d to %d", len(list), least, most)
	}
	for _, id := range list {
		if err := named("device id", id, ids.MaxBytes); err != nil {
			return err
		}
	}
	return nil
}

// checkPair checks the device and the title of a command.
func checkPair(c interface {
	GetDeviceId() string
	GetTitleId() string
}) error {
	if err := named("device id", c.GetDeviceId(), ids.MaxBytes); err != nil {
		return err
	}
	return named("title id", c.GetTitleId(), ids.MaxBytes)
}

// named returns what is wrong with an id that must be given, with the name of the field.
func named(what, id string, limit int) error {
	if fault := ids.Fault(id, limit); fault != "" {
		return fmt.Errorf("%s %s", what, fault)
	}
	return nil
}

// optional checks an id that may be absent.
func optional(what, id string) error {
	if id == "" {
		return nil
	}
	return named(what, id, ids.MaxBytes)
}

// CheckForeign implements actors.Kind: ids as the API takes them, times between 1970 and the year 9999, order numbers
// that can be counted on from, and an aggregate id of the form that the type of the event has.
func (k *Kind) CheckForeign(r *persistence.Record) error {
	event, err := k.DecodeEvent(r.Mapper, r.Header, r.Data)
	if err != nil {
		return err
	}
	if err := named("command id", r.CommandID, ids.MaxCommandBytes); err != nil {
		return err
	}
	if err := optional("policy version", r.Header.PolicyVersion); err != nil {
		return err
	}
	for _, text := range []struct{ what, text string }{{"principal", r.Principal}, {"reason", r.Reason}} {
		if strings.ContainsFunc(text.text, unicode.IsControl) || len(text.text) > persistence.MaxNameLen {
			return fmt.Errorf("%s has control characters or more than %d bytes", text.what, persistence.MaxNameLen)
		}
	}
	if r.Order > maxOrder {
		return fmt.Errorf("order number %d, the largest is %d", r.Order, uint64(maxOrder))
	}
	for _, t := range []struct {
		what string
		ms   int64
	}{{"time", r.Time.UnixMilli()}, {"issue time", r.IssuedAt.UnixMilli()}} {
		if t.what == "issue time" && r.Index > 0 {
			continue // only the first record of a command has one
		}
		if err := checkTime(t.what, t.ms); err != nil {
			return err
		}
	}
	if err := checkAbout(r.AggregateID, event); err != nil {
		return err
	}
	return checkContent(event)
}

// maxOrder is the largest order number that JSON clients read as it is; events to come count on from there.
const maxOrder = 1 << 52

// latest is the last time that can be told in every form of the API.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC).UnixMilli()

func checkTime(what string, ms int64) error {
	if ms < 0 || ms > latest {
		return fmt.Errorf("%s %d ms is not between the years 1970 and 9999", what, ms)
	}
	return nil
}

// checkAbout checks the aggregate id of an event: the customer, a device, or a device and a title.
func checkAbout(id string, event any) error {
	switch event.(type) {
	case *licensedv1.PlanChanged, *licensedv1.DevicesSelected, *licensedv1.ExceptionGranted,
		*licensedv1.ExceptionWithdrawn, *licensedv1.CommandAccepted, *licensedv1.CommandRefused:
		if id != customer {
			return fmt.Errorf("aggregate id %q, want %q", clipped(id), customer)
		}
		return nil
	case *licensedv1.DeviceActivated, *licensedv1.DeviceDeactivated, *licensedv1.DeviceLabeled,
		*licensedv1.AllowanceLent, *licensedv1.AllowanceReturned:
		return named("device in the aggregate id", id, ids.MaxBytes)
	}
	// A fact about a title that the device has no licence for.
	if o := occurrenceOf(event); o.GetTitleId() != "" {
		return named("device in the aggregate id", id, ids.MaxBytes)
	}
	device, title, ok := strings.Cut(id, "/")
	if !ok {
		return fmt.Errorf("aggregate id %q, want a device and a title", clipped(id))
	}
	if err := named("device in the aggregate id", device, ids.MaxBytes); err != nil {
		return err
	}
	return named("title in the aggregate id", title, ids.MaxBytes)
}

// clipped is an id for an error.
func clipped(id string) string { return id[:min(len(id), ids.MaxBytes)] }

// checkContent checks the ids and times in an event.
func checkContent(event any) error {
	switch e := event.(type) {
	case *licensedv1.LicenseAcquired:
		return first(optional("studio id", e.GetStudioId()), checkTime("expiry", e.GetExpiresAtMs()),
			checkTime("issue time", e.GetIssuedAtMs()))
	case *licensedv1.DeviceActivated:
		return checkTime("issue time", e.GetIssuedAtMs())
	case *licensedv1.DeviceLabeled:
		return checkName(e.GetDeviceName())
	case *licensedv1.PlanChanged:
		return first(named("plan id", e.GetPlanId(), ids.MaxBytes), checkTime("issue time", e.GetIssuedAtMs()),
			checkDevices(e.GetStayingDeviceIds(), 0, MaxSelected), checkTime("end of the grace", e.GetGraceUntilMs()))
	case *licensedv1.DevicesSelected:
		return checkDevices(e.GetStayingDeviceIds(), 0, MaxSelected)
	case *licensedv1.ExceptionGranted:
		return checkException(e.GetException())
	case *licensedv1.ExceptionWithdrawn:
		return first(checkException(e.GetException()), CheckReason(e.GetReason()))
	case *licensedv1.TitleDownloaded:
		return first(checkTerms(e.GetLicense()), checkOccurrence(e.GetOccurrence()),
			checkTime("issue time", e.GetIssuedAtMs()))
	case *licensedv1.TitlePlayed:
		return first(checkTerms(e.GetLicense()), checkOccurrence(e.GetOccurrence()))
	case *licensedv1.TitleDeleted:
		if e.GetOccurrence() == nil {
			return errors.New("a deletion without an occurrence")
		}
		return checkOccurrence(e.GetOccurrence())
	case *licensedv1.CommandAccepted:
		return first(optional("device id", e.GetDeviceId()), optional("title id", e.GetTitleId()),
			optional("plan id", e.GetPlanId()), checkTerms(e.GetLicense()),
			checkTime("issue time", e.GetIssuedAtMs()), checkTime("choice of the plan", e.GetPlanChangedAtMs()),
			checkDevices(e.GetStayingDeviceIds(), 0, MaxSelected))
	case *licensedv1.CommandRefused:
		return first(optional("device id", e.GetDeviceId()), optional("title id", e.GetTitleId()),
			optional("plan id", e.GetPlanId()), optional("studio id", e.GetStudioId()),
			checkTime("next time allowed", e.GetNextAllowedAtMs()), checkBroken(e.GetBroken()),
			checkLabels(e.GetDevices()))
	case *licensedv1.AllowanceLent:
		return checkLent(e)
	case *licensedv1.AllowanceRedeemed:
		return first(checkTerms(e.GetLicense()), checkTime("redemption", e.GetRedeemedAtMs()),
			checkTime("issue time", e.GetIssuedAtMs()))
	case *licensedv1.AllowanceReturned:
		if len(e.GetTitleIds()) > MaxLent {
			return fmt.Errorf("%d titles of an allowance, want at most %d", len(e.GetTitleIds()), MaxLent)
		}
		for _, id := range e.GetTitleIds() {
			if err := named("title id", id, ids.MaxBytes); err != nil {
				return err
			}
		}
	case interface {
		GetLicense() *licensedv1.LicenseTerms
	}:
		return checkTerms(e.GetLicense())
	}
	return nil
}

// checkBroken checks the rules of a refusal.
func checkBroken(rules []*licensedv1.BrokenRule) error {
	if len(rules) >= maxBroken {
		return fmt.Errorf("%d broken rules, want less than %d", len(rules), maxBroken)
	}
	for _, b := range rules {
		if len(b.GetFreedBy()) > maxFreedBy {
			return fmt.Errorf("%d remedies of a broken rule, want at most %d", len(b.GetFreedBy()), maxFreedBy)
		}
		err := first(optional("plan id", b.GetPlanId()), optional("studio id", b.GetStudioId()),
			checkTime("next time allowed", b.GetNextAllowedAtMs()), checkTime("exception", b.GetExceptionUntilMs()),
			checkDevices(b.GetStayingDeviceIds(), 0, maxFreedBy))
		for _, id := range b.GetFreedBy() {
			device, title, _ := strings.Cut(id, "/")
			err = first(err, named("device id", device, ids.MaxBytes), optional("title id", title))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkTerms checks the terms of a licence; nil has none.
func checkTerms(t *licensedv1.LicenseTerms) error {
	return first(optional("studio id", t.GetStudioId()), checkTime("acquisition", t.GetAcquiredAtMs()),
		checkTime("expiry", t.GetExpiresAtMs()))
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
