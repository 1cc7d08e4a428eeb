package model_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy"
	"licensed/messages/licensedv1"
	"licensed/test/chaos/client"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// TestSameAsProduct lets the model and the product, which share nothing but the document of the rules,
// execute the same commands.
func TestSameAsProduct(t *testing.T) {
	start := time.UnixMilli(1_790_000_000_123)
	rules := model.Standard(start)
	p, err := policy.Parse("chaos.yaml", []byte(rules.YAML()))
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for seed := range uint64(80) {
		random := rand.New(rand.NewPCG(seed, 0))
		aggregate := license.NewKind(p).New("c")
		state, now := model.New(&rules), start
		for range 150 {
			now = now.Add(time.Duration(random.IntN(3)) * time.Millisecond)
			in := choose(random)
			if random.IntN(2) == 0 {
				in.IssuedAt = now.UnixMilli() - random.Int64N(100)
			}
			command := client.Command(&in)
			decision := aggregate.Decide(now, command)
			var want history.Output
			var events []model.Event
			state, want, events = state.Apply(&in, now.UnixMilli())
			compareEvents(t, seed, &in, events, decisionEvents(decision))
			got := decode(t, command, now, license.NewKind(p).Outcome(decision.Events))
			got.Sequence = want.Sequence
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %+v\nproduct %+v\nmodel   %+v", seed, in, got, want)
			}
			if want.Refusal != nil {
				outcomes[want.Refusal.Rule]++
			}
			for _, e := range decision.Events {
				aggregate.Evolve(e)
			}
			compareAnswers(t, seed, state, func(q *licensedv1.Query) any {
				a, err := aggregate.Query(now, q)
				if err != nil {
					t.Fatal(err)
				}
				return a
			})
		}
	}
	for _, rule := range []string{
		model.DeviceLimit, model.StudioLimit, model.YearlyLimit, model.DeactivationLimit, model.NoLicense,
		model.Released, model.UnknownDevice, model.UnknownPlan, model.TitleUnavailable, model.Played,
		model.DeviceTitles, model.MonthlyLimit,
	} {
		if outcomes[rule] == 0 {
			t.Errorf("%s never refused anything", rule)
		}
	}
}

func choose(r *rand.Rand) history.Input {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	in := history.Input{Customer: "c"}
	switch n := r.IntN(100); {
	case n < 45:
		in.Kind, in.NewDownload = history.Acquire, r.IntN(3) == 0
	case n < 57:
		in.Kind = history.Renew
	case n < 72:
		in.Kind = history.Release
	case n < 84:
		in.Kind = history.Play
	case n < 92:
		return history.Input{Kind: history.Deactivate, Customer: "c", Device: pick("d", "e", "f", "g")}
	default:
		return history.Input{Kind: history.ChangePlan, Customer: "c", Plan: pick("one", "two", "three", "none")}
	}
	in.Device, in.Title = pick("d", "e", "f", "g"), pick("A", "B", "C", "D", "E", "F", "G", "H", "I")
	return in
}

func decisionEvents(d actors.Decision) []model.Event {
	var events []model.Event
	for _, e := range d.Events {
		name := e.Value.(proto.Message).ProtoReflect().Descriptor().Name()
		events = append(events, model.Event{Aggregate: e.AggregateID, Name: string(name)})
	}
	return events
}

func compareEvents(t *testing.T, seed uint64, in *history.Input, model, product []model.Event) {
	t.Helper()
	if !reflect.DeepEqual(model, product) {
		t.Fatalf("seed %d: %+v\nproduct %+v\nmodel   %+v", seed, in, product, model)
	}
}

func decode(t *testing.T, c *licensedv1.Command, now time.Time, outcome []byte) history.Output {
	t.Helper()
	o, err := license.DecodeOutcome("c", c, now, outcome)
	if err != nil {
		t.Fatal(err)
	}
	out := history.Output{
		Outcome: history.Accepted, Titles: o.ReleasedTitles, Plan: o.PlanID, DeviceLimit: o.DeviceLimit,
	}
	if o.License != nil {
		l := client.License(o.License)
		out.License = &l
	}
	if r := o.Refusal; r != nil {
		return history.Output{
			Outcome: history.Refused,
			Refusal: &history.Refusal{Rule: r.Rule.String(), Limit: r.Limit, Current: r.Current},
		}
	}
	return out
}

func compareAnswers(t *testing.T, seed uint64, s *model.State, ask func(*licensedv1.Query) any) {
	t.Helper()
	for _, q := range []struct {
		in  history.Input
		got history.Output
	}{
		{history.Input{Kind: history.ListLicenses}, client.Licenses(ask(&licensedv1.Query{
			Query: &licensedv1.Query_ListLicenses{ListLicenses: &licensedv1.ListLicenses{}},
		}).(*licensedv1.ListLicensesResponse))},
		{history.Input{Kind: history.ListLicenses, Inactive: true}, client.Licenses(ask(&licensedv1.Query{
			Query: &licensedv1.Query_ListLicenses{ListLicenses: &licensedv1.ListLicenses{IncludeInactive: true}},
		}).(*licensedv1.ListLicensesResponse))},
		{history.Input{Kind: history.ListDevices}, client.Devices(ask(&licensedv1.Query{
			Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}},
		}).(*licensedv1.ListDevicesResponse))},
		{history.Input{Kind: history.ListDownloads, Title: "F"}, client.Downloads(ask(&licensedv1.Query{
			Query: &licensedv1.Query_ListDownloads{ListDownloads: &licensedv1.ListDownloads{TitleId: "F"}},
		}).(*license.Downloads).Response)},
	} {
		q.got.Outcome, q.got.Sequence = history.Accepted, s.Sequence
		if want := s.Answer(&q.in); !reflect.DeepEqual(q.got, want) {
			t.Fatalf("seed %d: %+v\nproduct %+v\nmodel   %+v", seed, q.in, q.got, want)
		}
	}
}
