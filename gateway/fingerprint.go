package gateway

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// fingerprint returns a hash of all that the client said in a command, except for its id,
// validate_only and signed, and without what the gateway adds: the same id with another fingerprint is another
// command. It is stored with the command, and so must never change for requests that a released version could have
// made. The encoding is therefore our own: the number of the command, then number and value of each field that is set
// (numbers as in the .proto files). A field that is added later changes nothing while it is unset.
//
// protobuf's encoding is not used, since it is not canonical: another release, or another
// language, may order or write fields differently.
func fingerprint(c *licensedv1.Command, issuedAt *timestamppb.Timestamp) uint64 {
	// Room for the longest ids, so that nothing is allocated.
	var array [512]byte
	b := canonical(array[:0])
	switch c := c.Command.(type) {
	case *licensedv1.Command_AcquireLicense:
		b = b.number(1)
		b = b.text(1, c.AcquireLicense.DeviceId).text(2, c.AcquireLicense.TitleId)
		b = b.flag(3, c.AcquireLicense.NewDownload)
	case *licensedv1.Command_RenewLicense:
		b = b.number(2).text(1, c.RenewLicense.DeviceId).text(2, c.RenewLicense.TitleId)
		b = b.integer(3, c.RenewLicense.AcquiredAtMs)
	case *licensedv1.Command_ReleaseLicense:
		b = b.number(3).text(1, c.ReleaseLicense.DeviceId).text(2, c.ReleaseLicense.TitleId)
		b = b.integer(3, c.ReleaseLicense.AcquiredAtMs)
	case *licensedv1.Command_RecordPlayback:
		b = b.number(4).text(1, c.RecordPlayback.DeviceId).text(2, c.RecordPlayback.TitleId)
		b = b.integer(3, c.RecordPlayback.PlayedAtMs).integer(4, c.RecordPlayback.SentAtMs)
	case *licensedv1.Command_DeactivateDevice:
		b = b.number(5).text(1, c.DeactivateDevice.DeviceId).integer(2, c.DeactivateDevice.ActivatedAtMs)
	case *licensedv1.Command_ChangePlan:
		b = b.number(6).text(1, c.ChangePlan.PlanId).integer(2, c.ChangePlan.PlanChangedAtMs)
	case *licensedv1.Command_SyncDevice:
		b = b.number(7).text(1, c.SyncDevice.DeviceId)
		for _, f := range c.SyncDevice.Facts {
			b = b.number(2).number(f.Number).number(uint64(f.Kind)).text(3, f.TitleId).integer(4, f.AtMs)
		}
		b = b.integer(3, c.SyncDevice.SentAtMs).integer(4, int64(c.SyncDevice.AfterNumber))
	case *licensedv1.Command_SelectDevices:
		b = b.number(8)
		for _, id := range c.SelectDevices.DeviceIds {
			b = b.text(1, id)
		}
	case *licensedv1.Command_GrantException:
		b = b.number(18).grant(c.GrantException)
	case *licensedv1.Command_WithdrawException:
		b = b.number(19).text(1, c.WithdrawException.Reason).integer(2, int64(c.WithdrawException.Number))
	case *licensedv1.Command_LendAllowance: // The gateway's id is not what the client said.
		b = b.number(38).text(1, c.LendAllowance.DeviceId)
		for _, id := range c.LendAllowance.TitleIds {
			b = b.text(2, id)
		}
	case *licensedv1.Command_ReturnAllowance: // Only gateways send it.
		b = b.number(39).text(1, c.ReturnAllowance.DeviceId).integer(2, int64(c.ReturnAllowance.Number))
	}
	if issuedAt != nil {
		b = b.number(fieldIssuedAt).number(uint64(issuedAt.Seconds)).number(uint64(issuedAt.Nanos))
	}
	return xxhash.Sum64(b)
}

// fieldIssuedAt stands for issued_at, whose number differs between the requests; no command will have
// as many fields.
const fieldIssuedAt = 1 << 16

// canonical is the encoding that is hashed. Each method returns it with one more part.
type canonical []byte

// grant appends the fields of GrantException, other than those that the service sets.
func (b canonical) grant(c *licensedv1.GrantException) canonical {
	b = b.text(1, c.Reason).integer(2, c.UntilMs)
	switch k := c.Kind.(type) {
	case *licensedv1.GrantException_Limit:
		b = b.number(3).number(uint64(k.Limit.GetKind()))
		if k.Limit != nil && k.Limit.Limit != nil {
			b = b.number(2).number(uint64(*k.Limit.Limit))
		}
		b = b.text(3, k.Limit.GetTitleId()).text(4, k.Limit.GetStudioId())
	case *licensedv1.GrantException_Removal:
		b = b.number(4).time(1, k.Removal.GetRemovedAt())
	case *licensedv1.GrantException_Use:
		b = b.number(5).text(1, k.Use.GetTitleId()).text(2, k.Use.GetDeviceId()).time(3, k.Use.GetUsedAt())
		b = b.flag(4, k.Use.GetPlayback())
	case *licensedv1.GrantException_Merge:
		b = b.number(6).text(1, k.Merge.GetOldDeviceId()).text(2, k.Merge.GetNewDeviceId())
	}
	return b
}

// time appends a field with a time, unless there is none.
func (b canonical) time(field uint64, t *timestamppb.Timestamp) canonical {
	if t == nil {
		return b
	}
	return b.number(field).number(uint64(t.Seconds)).number(uint64(t.Nanos))
}

// number appends a number as a varint.
func (b canonical) number(n uint64) canonical { return binary.AppendUvarint(b, n) }

// text appends a field with a text, unless it is empty.
func (b canonical) text(field uint64, s string) canonical {
	if s == "" {
		return b
	}
	return append(b.number(field).number(uint64(len(s))), s...)
}

// integer appends a field with a number, unless it is 0.
func (b canonical) integer(field uint64, n int64) canonical {
	if n == 0 {
		return b
	}
	return b.number(field).number(uint64(n))
}

// flag appends a field that is true.
func (b canonical) flag(field uint64, set bool) canonical {
	if !set {
		return b
	}
	return b.number(field).number(1)
}
