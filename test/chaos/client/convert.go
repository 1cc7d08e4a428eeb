package client

import (
	"unique"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/history"
)

// same is a name that comes again and again, kept once: a run keeps millions of answers.
func same(s string) string { return unique.Make(s).Value() }

// License returns a licence as histories have it.
func License(l *licensedv1.License) history.License {
	return history.License{
		Device:   same(l.GetDeviceId()),
		Title:    same(l.GetTitleId()),
		Studio:   same(l.GetStudioId()),
		Acquired: millis(l.GetAcquiredAt()),
		Expires:  millis(l.GetExpiresAt()), Renewals: l.GetRenewals(), Released: l.GetReleased(),
	}
}

// Licenses returns an answer as histories have it.
func Licenses(r *licensedv1.ListLicensesResponse) history.Output {
	out := history.Output{Sequence: r.Sequence}
	for _, l := range r.Licenses {
		out.Licenses = append(out.Licenses, License(l))
	}
	return out
}

// Devices returns an answer as histories have it.
func Devices(r *licensedv1.ListDevicesResponse) history.Output {
	out := history.Output{Sequence: r.Sequence, Plan: r.PlanId, DeviceLimit: r.DeviceLimit}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, history.Device{
			Device: same(d.DeviceId), Active: d.Active, Licenses: d.ActiveLicenses, Download: millis(d.LastDownloadAt),
		})
	}
	return out
}

// Downloads returns an answer as histories have it, which is without playbacks.
func Downloads(r *licensedv1.ListDownloadsResponse) history.Output {
	out := history.Output{Sequence: r.Sequence, Allowed: r.Allowed, Limit: r.Limit}
	for _, d := range r.Downloads {
		if d.Playback {
			continue
		}
		out.Downloads = append(out.Downloads, history.Download{Device: same(d.DeviceId), At: millis(d.At)})
	}
	return out
}

// Command returns a command as HistoryService takes it, nil for a question.
func Command(in *history.Input) *licensedv1.Command {
	c := commandOf(in)
	if c != nil {
		c.IssuedAtMs = in.IssuedAt
	}
	return c
}

func commandOf(in *history.Input) *licensedv1.Command {
	switch in.Kind {
	case history.Acquire:
		return &licensedv1.Command{Command: &licensedv1.Command_AcquireLicense{
			AcquireLicense: &licensedv1.AcquireLicense{
				DeviceId: in.Device, TitleId: in.Title, NewDownload: in.NewDownload,
			},
		}}
	case history.Renew:
		return &licensedv1.Command{Command: &licensedv1.Command_RenewLicense{RenewLicense: &licensedv1.RenewLicense{
			DeviceId: in.Device, TitleId: in.Title,
		}}}
	case history.Release:
		return &licensedv1.Command{Command: &licensedv1.Command_ReleaseLicense{
			ReleaseLicense: &licensedv1.ReleaseLicense{
				DeviceId: in.Device, TitleId: in.Title,
			},
		}}
	case history.Play:
		return &licensedv1.Command{Command: &licensedv1.Command_RecordPlayback{
			RecordPlayback: &licensedv1.RecordPlayback{
				DeviceId: in.Device, TitleId: in.Title,
			},
		}}
	case history.Deactivate:
		return &licensedv1.Command{Command: &licensedv1.Command_DeactivateDevice{
			DeactivateDevice: &licensedv1.DeactivateDevice{
				DeviceId: in.Device,
			},
		}}
	case history.ChangePlan:
		return &licensedv1.Command{
			Command: &licensedv1.Command_ChangePlan{ChangePlan: &licensedv1.ChangePlan{PlanId: in.Plan}},
		}
	}
	return nil
}

func millis(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMilli()
}
