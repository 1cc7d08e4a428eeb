package cassandra

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"licensed/persistence"
)

// safe is a setup without a risk.
func safe() (*findings, *Options) {
	o := DefaultOptions()
	o.Logger = slog.New(slog.DiscardHandler)
	return &findings{
		dataCenters: []string{"dc1"}, dataCenter: "dc1", strategy: "NetworkTopologyStrategy", replicas: 3,
		tables: map[string]tableOptions{
			"events": {readRepair: "BLOCKING"}, "snapshots": {readRepair: "BLOCKING"}, "leases": {readRepair: "NONE"},
		},
		cluster: clusterRow{
			ClusterInfo: persistence.ClusterInfo{Name: "c", Shards: 512}, serial: "LOCAL_SERIAL", dataCenter: "dc1",
		},
		commitLog: map[string]bool{"batch": true}, paxosVariant: map[string]bool{"v2": true}, mutationBytes: 16 << 20,
	}, &o
}

func TestRisks(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*findings, *Options)
		want   string
		severe bool
	}{
		"nothing":         {func(*findings, *Options) {}, "", false},
		"not created yet": {func(f *findings, _ *Options) { f.cluster = clusterRow{} }, "", false},
		"no copies":       {func(f *findings, _ *Options) { f.replicas = 0 }, RiskNoReplicas, true},
		"one copy":        {func(f *findings, _ *Options) { f.replicas = 1 }, RiskReplication1, true},
		"two copies":      {func(f *findings, _ *Options) { f.replicas = 2 }, RiskReplication2, false},
		"two data centres": {func(f *findings, _ *Options) {
			f.dataCenters = []string{"dc1", "dc2"}
		}, RiskDataCenter, true},
		"two data centres, one set": {
			func(f *findings, o *Options) { f.dataCenters = []string{"dc1", "dc2"}; o.DataCenter = "dc1" }, "", false,
		},
		"simple": {func(f *findings, o *Options) {
			f.dataCenters, f.strategy, o.DataCenter = []string{"dc1", "dc2"}, "SimpleStrategy", "dc1"
		}, RiskSimple, true},
		"SERIAL elsewhere": {func(_ *findings, o *Options) { o.Consistency = Quorum }, RiskSerial, true},
		"another's data centre": {func(f *findings, o *Options) {
			f.dataCenters, f.dataCenter, o.DataCenter = []string{"dc1", "dc2"}, "dc2", "dc2"
		}, RiskSerial, true},
		"read repair": {func(f *findings, _ *Options) {
			f.tables["events"] = tableOptions{readRepair: "NONE"}
		}, RiskReadRepair, true},
		"read repair of roots": {func(f *findings, _ *Options) {
			f.tables["snapshots"] = tableOptions{readRepair: "NONE"}
		}, RiskReadRepair, true},
		"time to live": {func(f *findings, _ *Options) {
			f.tables["leases"] = tableOptions{timeToLive: 1}
		}, RiskTimeToLive, true},
		"periodic":        {func(f *findings, _ *Options) { f.commitLog["periodic"] = true }, RiskCommitLog, false},
		"paxos v1":        {func(f *findings, _ *Options) { f.paxosVariant["v1"] = true }, RiskPaxosVariant, false},
		"small mutations": {func(f *findings, _ *Options) { f.mutationBytes = 8 << 20 }, RiskMutationLimit, true},
		"limits unknown": {func(f *findings, _ *Options) {
			f.mutationBytes = 0
			f.unreadable = errors.New("no")
		}, RiskUnchecked, false},
		"clock": {func(f *findings, _ *Options) { f.skew = 2 * time.Second }, RiskClock, false},
	} {
		f, o := safe()
		tt.change(f, o)
		got := f.risks(o)
		if tt.want == "" {
			if len(got) != 0 || judge(got, o) != nil {
				t.Errorf("%s: %v, want none", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Name != tt.want || got[0].Severe != tt.severe {
			t.Errorf("%s: %+v, want %s, severe %v", name, got, tt.want, tt.severe)
		}
		if err := judge(got, o); errors.Is(err, ErrUnsafe) != tt.severe || (err != nil) != tt.severe {
			t.Errorf("%s: %v", name, err)
		}
		for _, accepted := range []string{tt.want, "all"} {
			o.AcceptRisks = []string{"other", accepted}
			if err := judge(got, o); err != nil {
				t.Errorf("%s, accepted: %v", name, err)
			}
		}
	}
}

func TestReplicas(t *testing.T) {
	for _, tt := range []struct {
		replication map[string]string
		dataCenter  string
		want        int
	}{
		{map[string]string{"class": "org.apache.cassandra.locator.SimpleStrategy", "replication_factor": "3"}, "dc1",
			3},
		{map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3", "dc2": "2"}, "dc1", 3},
		{map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3", "dc2": "2"}, "", 5},
		{map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3/1"}, "dc1", 3},
		{map[string]string{"class": "NetworkTopologyStrategy", "dc1": "3"}, "dc2", 0},
	} {
		if got := replicas(tt.replication, tt.dataCenter); got != tt.want {
			t.Errorf("%v in %q: %d, want %d", tt.replication, tt.dataCenter, got, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int{
		"5KiB": 5 << 10, "16MiB": 16 << 20, "1GiB": 1 << 30, "10": 10, "16384KiB": 16 << 20, "7B": 7,
	} {
		if got, ok := parseSize(s); !ok || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "KiB", "many", "-1", "5 KiB"} {
		if got, ok := parseSize(s); ok {
			t.Errorf("%q: %d, want none", s, got)
		}
	}
}
