package license

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
)

// TestTranscripts runs testdata/*.txt, which tell the rules by example; -rewrite writes what is
// answered now into them.
//
//	policy                            put the policy below in force
//	at TIME                           set the clock
//	after 30d 1ms                     move the clock
//	acquire DEVICE TITLE [new-download] [validate-only]
//	renew, release, play DEVICE TITLE [validate-only]
//	deactivate DEVICE [validate-only]
//	plan PLAN [validate-only]
//	sync DEVICE [sent=TIME] [after=NUMBER] [validate-only]   the facts below: NUMBER KIND TITLE TIME
//	select DEVICE… [validate-only]
//	lend DEVICE GATEWAY TITLE… [validate-only]
//	redeem DEVICE TITLE GATEWAY ALLOWANCE [redeemed=TIME]
//	return DEVICE GATEWAY ALLOWANCE
//	grant devices|studio|yearly|removals [limit=N] until=TIME [title=TITLE] [studio=STUDIO] [validate-only]
//	forgive removal [at=TIME] [validate-only]
//	forgive download|playback TITLE [device=DEVICE] [at=TIME] [validate-only]
//	merge OLD-DEVICE NEW-DEVICE [validate-only]
//	withdraw NUMBER [validate-only]
//	exceptions
//	licenses [all]
//	devices
//	customer [pages]
//	downloads [TITLE] [since=TIME]
//	snapshot                          what a snapshot keeps
//
// Commands also take issued=TIME, and each of them what it has: acquired=TIME, activated=TIME, chosen=TIME,
// played=TIME, sent=TIME. name=(NAME) and type=TYPE label the device.
//
// A command is answered with its events (aggregate id, order number, name, data), and after "=" with
// the reply that a client gets.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		r := newTrial(t, policy.Default(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			r.t = t
			return r.directive(d)
		})
	})
}

func (r *trial) directive(d *datadriven.TestData) string {
	switch d.Cmd {
	case "policy":
		p, err := policy.Parse("policy", []byte(d.Input))
		if err != nil {
			return err.Error()
		}
		r.kind.SetPolicy(p)
		return "in force"
	case "at", "after":
		return r.clock(d)
	case "licenses", "devices", "downloads", "customer", "exceptions":
		return r.ask(d)
	case "snapshot":
		r.repack()
		s := r.packed.(*aggregate).state
		uses := 0
		for i := range s.licenses {
			uses += len(s.licenses[i].uses)
		}
		return fmt.Sprintf("devices: %d, licences: %d, downloads and playbacks: %d, deactivations: %d",
			len(s.devices), len(s.licenses), uses, len(s.deactivations))
	default:
		return r.command(d)
	}
}

func (r *trial) clock(d *datadriven.TestData) string {
	for _, arg := range d.CmdArgs {
		if d.Cmd == "at" {
			r.now = parseTime(r.t, arg.Key)
			break
		}
		days, isDays := strings.CutSuffix(arg.Key, "d")
		if n, err := strconv.Atoi(days); isDays && err == nil {
			r.now = r.now.Add(time.Duration(n) * 24 * time.Hour)
			continue
		}
		duration, err := time.ParseDuration(arg.Key)
		if err != nil {
			r.t.Fatal(err)
		}
		r.now = r.now.Add(duration)
	}
	return clock(r.now)
}

func parseTime(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (r *trial) command(d *datadriven.TestData) string {
	var names []string
	for _, arg := range d.CmdArgs {
		names = append(names, arg.Key)
	}
	names = append(names, "", "")
	var c *licensedv1.Command
	switch d.Cmd {
	case "acquire":
		c = acquire(names[0], names[1])
		c.GetAcquireLicense().NewDownload = d.HasArg("new-download")
	case "renew":
		c = renew(names[0], names[1])
	case "release":
		c = release(names[0], names[1])
	case "play":
		c = play(names[0], names[1])
	case "deactivate":
		c = deactivate(names[0])
	case "plan":
		c = changePlan(names[0])
	case "lend":
		c = lend(names[0], names[1], slices.DeleteFunc(names[2:], func(n string) bool {
			return n == "" || n == "validate-only"
		})...)
	case "redeem":
		number, err := strconv.ParseUint(names[3], 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		c = redeem(names[0], names[1], names[2], number, r.now)
	case "return":
		number, err := strconv.ParseUint(names[2], 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		c = giveBack(names[0], names[1], number)
	case "sync":
		c = sync(names[0], parseFacts(r.t, d.Input)...)
	case "select":
		c = selectDevices(slices.DeleteFunc(names, func(n string) bool { return n == "" || n == "validate-only" })...)
	case "grant", "forgive", "merge", "withdraw":
		c = r.exception(d, names)
	default:
		r.t.Fatalf("unknown directive %s", d.Cmd)
	}
	r.times(d, c)
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "name":
			c.DeviceName = arg.Vals[0]
		case "type":
			name := "DEVICE_TYPE_" + strings.ToUpper(arg.Vals[0])
			c.DeviceType = licensedv1.DeviceType(licensedv1.DeviceType_value[name])
		}
	}
	if d.HasArg("validate-only") {
		decision := r.decide(c)
		return reply(r.outcome(c, decision))
	}
	decision := r.execute(c)
	return describe(decision) + reply(r.outcome(c, decision))
}

// exception reads a command about an exception.
func (r *trial) exception(d *datadriven.TestData, names []string) *licensedv1.Command {
	var at time.Time
	var device string
	limit := &licensedv1.OtherLimit{Kind: licensedv1.LimitKind(
		licensedv1.LimitKind_value["LIMIT_KIND_"+strings.ToUpper(names[0])])}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "until", "at":
			at = parseTime(r.t, arg.Vals[0])
		case "title":
			limit.TitleId = arg.Vals[0]
		case "studio":
			if len(arg.Vals) > 0 {
				limit.StudioId = arg.Vals[0]
			}
		case "device":
			device = arg.Vals[0]
		case "limit":
			n, err := strconv.ParseUint(arg.Vals[0], 10, 32)
			if err != nil {
				r.t.Fatal(err)
			}
			limit.Limit = proto.Uint32(uint32(n))
		}
	}
	switch {
	case d.Cmd == "grant":
		return grantLimit(at, limit)
	case d.Cmd == "merge":
		return merge(names[0], names[1])
	case d.Cmd == "withdraw":
		n, err := strconv.ParseUint(names[0], 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		return withdraw(n)
	case names[0] == "removal":
		return forgiveRemoval(at)
	}
	use := &licensedv1.ForgivenUse{TitleId: names[1], DeviceId: device, Playback: names[0] == "playback"}
	if !at.IsZero() {
		use.UsedAt = timestamppb.New(at)
	}
	return forgiveUse(use)
}

// times sets the fields of a command that are times, and the number after which facts come.
func (r *trial) times(d *datadriven.TestData, c *licensedv1.Command) {
	fields := map[string]*int64{"issued": &c.IssuedAtMs}
	switch c := c.Command.(type) {
	case *licensedv1.Command_AcquireLicense:
		fields["redeemed"] = &c.AcquireLicense.RedeemedAtMs
	case *licensedv1.Command_RenewLicense:
		fields["acquired"] = &c.RenewLicense.AcquiredAtMs
	case *licensedv1.Command_ReleaseLicense:
		fields["acquired"] = &c.ReleaseLicense.AcquiredAtMs
	case *licensedv1.Command_RecordPlayback:
		fields["played"], fields["sent"] = &c.RecordPlayback.PlayedAtMs, &c.RecordPlayback.SentAtMs
	case *licensedv1.Command_DeactivateDevice:
		fields["activated"] = &c.DeactivateDevice.ActivatedAtMs
	case *licensedv1.Command_ChangePlan:
		fields["chosen"] = &c.ChangePlan.PlanChangedAtMs
	case *licensedv1.Command_SyncDevice:
		fields["sent"], fields["received"] = &c.SyncDevice.SentAtMs, &c.SyncDevice.ReceivedAtMs
		d.MaybeScanArgs(r.t, "after", &c.SyncDevice.AfterNumber)
	}
	for _, arg := range d.CmdArgs {
		if field := fields[arg.Key]; field != nil {
			*field = parseTime(r.t, arg.Vals[0]).UnixMilli()
		}
	}
}

func parseFacts(t testing.TB, lines string) (facts []*licensedv1.SyncDevice_Fact) {
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		number, err := strconv.ParseUint(words[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		kind := licensedv1.FactKind_value["FACT_KIND_"+strings.ToUpper(words[1])]
		facts = append(facts, fact(number, licensedv1.FactKind(kind), words[2], parseTime(t, words[3])))
	}
	return facts
}

func reply(o Outcome) string {
	if o.Superseded {
		o.Superseded = false
		return "= superseded; " + strings.TrimPrefix(reply(o), "= ")
	}
	switch {
	case o.Exception != nil:
		return fmt.Sprintf("= exception %d: %s", o.Exception.Number, o.Exception.Words())
	case o.Sync != nil:
		return fmt.Sprintf("= highest number %d, recorded %d, unlicensed %d", o.Sync.HighestNumber, o.Sync.Recorded,
			o.Sync.Unlicensed)
	case o.Refusal != nil:
		rule := strings.TrimPrefix(o.Refusal.Rule.String(), "RULE_")
		return fmt.Sprintf("= refused, %s: %s", rule, o.Refusal.Message)
	case o.License != nil:
		return "= " + licence(o.License)
	case o.Allowance.GetExpiresAt() != nil:
		return "= lent " + lentWords(o.Allowance)
	case o.Allowance != nil:
		return fmt.Sprintf("= returned %v", o.Allowance.TitleIds)
	case o.PlanID != "":
		s := fmt.Sprintf("= plan %s, devices: %d", o.PlanID, o.DeviceLimit)
		if o.Binding {
			s += fmt.Sprintf(", staying %v", o.StayingDevices)
		}
		return s
	case o.StayingDevices != nil:
		return fmt.Sprintf("= staying %v, at once: %v", o.StayingDevices, o.Binding)
	default:
		return fmt.Sprintf("= released %v%s", o.ReleasedTitles, cost(o.Removal))
	}
}

func lentWords(a *licensedv1.Allowance) string {
	return fmt.Sprintf("allowance %d: %v to %s by %s until %s", a.Number, a.TitleIds, a.DeviceId, a.GatewayId,
		clock(a.ExpiresAt.AsTime()))
}

// cost says what a removal costs and frees.
func cost(r *licensedv1.Removal) string {
	if r == nil {
		return ""
	}
	of := "unlimited"
	if r.Limit != nil {
		of = fmt.Sprint(*r.Limit)
	}
	return fmt.Sprintf(", counted: %v, removals: %d of %s, then in use: %d of %d", r.Counted, r.Removals, of,
		r.DevicesInUse, r.DeviceLimit)
}

func licence(l *licensedv1.License) string {
	s := fmt.Sprintf("%s/%s of %s, acquired %s, expires %s", l.DeviceId, l.TitleId, l.StudioId,
		clock(l.AcquiredAt.AsTime()), clock(l.ExpiresAt.AsTime()))
	if l.Renewals > 0 {
		s += fmt.Sprintf(", renewals: %d", l.Renewals)
	}
	if l.PlayHours != nil {
		s += fmt.Sprintf(", %d hours after the first playback", *l.PlayHours)
	}
	if l.Released {
		s += ", released"
	}
	return s
}

func (r *trial) ask(d *datadriven.TestData) string {
	var b strings.Builder
	switch d.Cmd {
	case "licenses":
		res := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{
			ListLicenses: &licensedv1.ListLicenses{IncludeInactive: d.HasArg("all")},
		}}).(*licensedv1.ListLicensesResponse)
		for _, l := range res.Licenses {
			fmt.Fprintln(&b, licence(l))
		}
	case "devices":
		res := r.query(&licensedv1.Query{Query: &licensedv1.Query_ListDevices{
			ListDevices: &licensedv1.ListDevices{},
		}}).(*licensedv1.ListDevicesResponse)
		fmt.Fprintf(&b, "plan %s, devices: %d\n", res.PlanId, res.DeviceLimit)
		for _, dev := range res.Devices {
			fmt.Fprintf(&b, "%s: %s, active licences: %d, last download %s%s\n", dev.DeviceId,
				map[bool]string{true: "active", false: "deactivated"}[dev.Active], dev.ActiveLicenses,
				clock(dev.LastDownloadAt.AsTime()), map[bool]string{true: ", selected"}[dev.Selected])
			if dev.MergedInto != "" {
				fmt.Fprintf(&b, "  merged into %s\n", dev.MergedInto)
			}
			if dev.DeviceName != "" || dev.DeviceType != 0 {
				fmt.Fprintf(&b, "  called %q, %s\n", dev.DeviceName, dev.DeviceType.Words())
			}
		}
	case "exceptions":
		res := r.query(&licensedv1.Query{Query: &licensedv1.Query_GetCustomer{
			GetCustomer: &licensedv1.GetCustomer{},
		}}).(*licensedv1.GetCustomerResponse)
		for _, e := range res.Exceptions {
			fmt.Fprintf(&b, "exception %d of %s (%s): %s; until %s\n", e.Number, clock(e.GrantedAt.AsTime()), e.Reason,
				e.Words(), clock(e.Until.AsTime()))
		}
	case "customer":
		r.describeCustomer(&b, d.HasArg("pages"))
	case "downloads":
		q := &licensedv1.ListDownloads{}
		for _, arg := range d.CmdArgs {
			if arg.Key == "since" {
				q.Since = timestamppb.New(parseTime(r.t, arg.Vals[0]))
			} else {
				q.TitleId = arg.Key
			}
		}
		r.describeDownloads(&b,
			r.query(&licensedv1.Query{Query: &licensedv1.Query_ListDownloads{ListDownloads: q}}).(*Downloads))
	}
	return b.String()
}

// describeCustomer shows what GetCustomer returns, one entry a page if so asked.
func (r *trial) describeCustomer(b *strings.Builder, pages bool) {
	q := &licensedv1.GetCustomer{}
	if pages {
		q.PageSize = 1
	}
	for n := 0; n == 0 || q.PageToken != ""; n++ {
		res := r.query(&licensedv1.Query{
			Query: &licensedv1.Query_GetCustomer{GetCustomer: q},
		}).(*licensedv1.GetCustomerResponse)
		if n == 0 {
			fmt.Fprintf(b, "as of %s\nplan %s (default: %t)\ndevices in use: %s\ndeactivations: %s\n",
				clock(res.AsOf.AsTime()), res.PlanId, res.DefaultPlan, quotaWords(res.DevicesInUse),
				quotaWords(res.Deactivations))
			if res.MonthlyDownloads.Limit != nil {
				fmt.Fprintf(b, "downloads of the month: %s\n", quotaWords(res.MonthlyDownloads))
			}
			if res.GraceUntil != nil {
				fmt.Fprintf(b, "grace until %s\n", clock(res.GraceUntil.AsTime()))
			}
			for _, a := range res.Allowances {
				fmt.Fprintf(b, "lent %s\n", lentWords(a))
			}
		}
		if pages {
			fmt.Fprintf(b, "page %d\n", n+1)
		}
		for _, dev := range res.Devices {
			fmt.Fprintf(b, "device %s: active %t, licences %d", dev.DeviceId, dev.Active, dev.ActiveLicenses)
			if dev.Licenses.Limit != nil {
				fmt.Fprintf(b, " (%s)", quotaWords(dev.Licenses))
			}
			fmt.Fprintln(b)
		}
		for _, l := range res.Licenses {
			fmt.Fprintf(b, "licence %s, %s", licence(l.License),
				strings.TrimPrefix(l.Status.String(), "LICENSE_STATUS_"))
			if l.FirstPlayedAt != nil {
				fmt.Fprintf(b, ", first played %s", clock(l.FirstPlayedAt.AsTime()))
			}
			fmt.Fprintln(b)
		}
		for _, t := range res.Titles {
			fmt.Fprintf(b, "title %s of %s: downloads %d, playbacks %d, %s\n", t.TitleId, t.StudioId, t.Downloads,
				t.CountedPlaybacks, quotaWords(t.Yearly))
		}
		for _, s := range res.Studios {
			fmt.Fprintf(b, "studio %s: %s\n", s.StudioId, quotaWords(s.Licenses))
		}
		q.PageToken = res.NextPageToken
	}
}

func quotaWords(q *licensedv1.Quota) string {
	if q.Limit == nil {
		return fmt.Sprintf("%d used, no limit", q.Used)
	}
	s := fmt.Sprintf("%d of %d used, %d left", q.Used, q.GetLimit(), q.GetLeft())
	if q.NextAt != nil {
		s += ", next at " + clock(q.NextAt.AsTime())
	}
	return s
}

func (r *trial) describeDownloads(b *strings.Builder, a *Downloads) {
	list, res := a.Response.Downloads, a.Response
	if a.Older {
		fmt.Fprintln(b, "(from history)")
		var err error
		list, err = DownloadsFromHistory(res.TitleId, a.Since, r.events)
		if err != nil {
			r.t.Fatal(err)
		}
	}
	for _, download := range list {
		fmt.Fprintf(b, "%s %s", clock(download.At.AsTime()), download.DeviceId)
		if res.TitleId == "" {
			fmt.Fprintf(b, " %s", download.TitleId)
		}
		if download.Playback {
			fmt.Fprint(b, " (playback)")
		}
		fmt.Fprintln(b)
	}
	if res.TitleId == "" {
		return
	}
	limit := "no limit"
	if res.Limit != nil {
		limit = fmt.Sprintf("limit %d", *res.Limit)
	}
	fmt.Fprintf(b, "%s, another is allowed: %v", limit, res.Allowed)
	if res.NextAllowedAt != nil {
		fmt.Fprintf(b, ", from %s", clock(res.NextAllowedAt.AsTime()))
	}
	fmt.Fprintln(b)
}
