package license

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/actors/license/policy"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// foreign is a record as another cluster exports it.
func foreign(t *testing.T, about string, event proto.Message) persistence.Record {
	data, err := messages.AppendEvent(nil, event)
	if err != nil {
		t.Fatal(err)
	}
	return persistence.Record{
		Sequence: 3, Count: 1, CommandID: "c", AggregateID: about, Order: 1, Time: epoch, IssuedAt: epoch,
		Mapper: messages.EventMapper(event), Header: persistence.Header{PolicyVersion: "p1"}, Data: data,
	}
}

func TestCheckForeign(t *testing.T) {
	k := NewKind(must(policy.Parse("p", []byte("default_plan: p\nplans: {p: {devices: 2}}\n"))))
	acquired := func() proto.Message {
		return &licensedv1.LicenseAcquired{StudioId: "s", ExpiresAtMs: epoch.UnixMilli()}
	}
	terms := func(ms int64) *licensedv1.LicenseTerms {
		return &licensedv1.LicenseTerms{StudioId: "s", ExpiresAtMs: ms}
	}
	for name, test := range map[string]struct {
		about  string
		event  proto.Message
		change func(*persistence.Record)
		want   string // empty: accepted
	}{
		"acquired":              {"d/t", acquired(), nil, ""},
		"activated":             {"d", &licensedv1.DeviceActivated{}, nil, ""},
		"plan changed":          {"customer", &licensedv1.PlanChanged{PlanId: "p"}, nil, ""},
		"refused":               {"customer", &licensedv1.CommandRefused{DeviceId: "d"}, nil, ""},
		"no device":             {"/t", acquired(), nil, "device in the aggregate id is required"},
		"no title":              {"d/", acquired(), nil, "title in the aggregate id is required"},
		"neither":               {"", acquired(), nil, "want a device and a title"},
		"three parts":           {"a/b/c", acquired(), nil, "title in the aggregate id must not contain '/'"},
		"a licence of no title": {"d", acquired(), nil, "want a device and a title"},
		"a device with a title": {"d/t", &licensedv1.DeviceActivated{}, nil, "must not contain '/'"},
		"a label":               {"d", &licensedv1.DeviceLabeled{DeviceName: "Anna's iPad"}, nil, ""},
		"a label of a licence":  {"d/t", &licensedv1.DeviceLabeled{}, nil, "must not contain '/'"},
		"a misleading name":     {"d", &licensedv1.DeviceLabeled{DeviceName: "a\u202eb"}, nil, "format character"},
		"a refusal with a long name": {"customer", &licensedv1.CommandRefused{Devices: []*licensedv1.DeviceLabel{
			{DeviceId: "d", DeviceName: strings.Repeat("é", 65)},
		}}, nil, "has 65 characters, the limit is 64"},
		"too many names": {"customer", &licensedv1.CommandRefused{
			Devices: make([]*licensedv1.DeviceLabel, 65),
		}, nil, "65 names of devices"},
		"an empty device":    {"", &licensedv1.DeviceDeactivated{}, nil, "is required"},
		"a plan of a device": {"d", &licensedv1.PlanChanged{PlanId: "p"}, nil, `want "customer"`},
		"control characters": {"d\n/t", acquired(), nil, "control characters"},
		"no UTF-8":           {"d\xff/t", acquired(), nil, "not UTF-8"},
		"a long device":      {strings.Repeat("d", 129) + "/t", acquired(), nil, "has 129 bytes"},
		"never expires": {
			"d/t", &licensedv1.LicenseAcquired{ExpiresAtMs: math.MaxInt64}, nil, "is not between the years",
		},
		"expired before 1970": {
			"d/t", &licensedv1.LicenseAcquired{ExpiresAtMs: -1}, nil, "is not between the years",
		},
		"renewed for ever": {
			"d/t", &licensedv1.LicenseRenewed{License: terms(math.MaxInt64)}, nil, "is not between the years",
		},
		"released, never ending": {
			"d/t", &licensedv1.LicenseReleased{License: terms(math.MinInt64)}, nil, "is not between the years",
		},
		"accepted, for ever": {
			"customer", &licensedv1.CommandAccepted{License: terms(math.MaxInt64)}, nil, "is not between the years",
		},
		"allowed never": {
			"customer", &licensedv1.CommandRefused{NextAllowedAtMs: math.MaxInt64}, nil, "is not between the years",
		},
		"refused on a bad title": {
			"customer", &licensedv1.CommandRefused{TitleId: "a/b"}, nil, "title id must not contain",
		},
		"a studio with a colon": {
			"d/t", &licensedv1.LicenseAcquired{StudioId: "a:b"}, nil, "studio id must not contain",
		},
		"no plan": {"customer", &licensedv1.PlanChanged{}, nil, "plan id is required"},
		"a strange command id": {"d/t", acquired(), func(r *persistence.Record) {
			r.CommandID = "a\x00"
		}, "command id must not contain"},
		"a long command id": {"d/t", acquired(), func(r *persistence.Record) {
			r.CommandID = strings.Repeat("c", 65)
		}, "command id has 65 bytes"},
		"a strange policy": {"d/t", acquired(), func(r *persistence.Record) {
			r.Header.PolicyVersion = "\xff"
		}, "policy version must not contain"},
		"the last order number": {"d/t", acquired(), func(r *persistence.Record) {
			r.Order = math.MaxUint64
		}, "order number 18446744073709551615"},
		"before 1970": {"d/t", acquired(), func(r *persistence.Record) {
			r.Time = r.Time.AddDate(-200, 0, 0)
		}, "time -"},
		"issued too late": {"d/t", acquired(), func(r *persistence.Record) {
			r.IssuedAt = r.IssuedAt.AddDate(9000, 0, 0)
		}, "issue time"},
		"of another type": {"d/t", acquired(), func(r *persistence.Record) {
			r.Mapper = "Other/1"
		}, "unknown event mapper"},
		"data of no event": {"d/t", acquired(), func(r *persistence.Record) {
			r.Data = []byte{0xff}
		}, "LicenseAcquired/1"},
		"a reason with a control character": {"d/t", acquired(), func(r *persistence.Record) {
			r.Reason = "lost\x1b[2J"
		}, "reason has control characters"},
		"a principal": {"d/t", acquired(), func(r *persistence.Record) { r.Principal = "tokens:shop" }, ""},
		"encrypted":   {"d/t", acquired(), func(r *persistence.Record) { r.Header.KeyID = "k" }, "key"},
	} {
		r := foreign(t, test.about, test.event)
		if test.change != nil {
			test.change(&r)
		}
		err := k.CheckForeign(&r)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	for name, test := range map[string]struct {
		id       string
		validate bool
		payload  any
		want     string
	}{
		"sound":           {"c", false, acquire("d", "t"), ""},
		"only validated":  {"", true, acquire("d", "t"), ""},
		"no id":           {"", false, acquire("d", "t"), "command id is required"},
		"no command":      {"c", false, &licensedv1.Command{}, "no command"},
		"another payload": {"c", false, "acquire", "no command, but a string"},
		"a long device":   {"c", false, acquire(strings.Repeat("d", 60_000), "t"), "device id has 60000 bytes"},
		"no title":        {"c", false, release("d", ""), "title id is required"},
		"a slash":         {"c", false, deactivate("a/b"), "device id must not contain '/'"},
	} {
		err := CheckCommand(test.id, test.validate, test.payload)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
