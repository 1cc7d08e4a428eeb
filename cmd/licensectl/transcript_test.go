package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"licensed/internal/node"
	"licensed/messages"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/pebble"
)

// TestTranscripts runs testdata/*.txt against a node in this process whose clock is the transcript's;
// -rewrite writes what is answered now into them.
//
//	run              the command lines below; "exit N" follows a code that is not 0
//	clock TIME       set the clock; clock +90m moves it
//	policy           put the policy below in force
//	width N          the width of the terminal, 0 for none
//	restart          the node
//	file NAME        writes the file below
//	talk             writes the talk's puzzle as an export, talk.jsonl
//	lose-archive     the archive's disk is replaced by an empty one
//	stop, start      the node
//	damage-snapshot CUSTOMER, damage-root CUSTOMER, damage-event CUSTOMER SEQUENCE
//	                 flips a bit of a stored row while the node is stopped
//	rebuilt          what the node tells of snapshots that it found damaged
//
// In command lines $DIR is a directory of the transcript, and $DATA that of the node. Of what differs
// from run to run, such as incarnations, only what it is is shown.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := newSession(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.directive(d)
		})
	})
}

// session is a node and somebody at a terminal.
type session struct {
	t      *testing.T
	dir    string
	config node.Config
	clock  atomic.Int64 // Unix milliseconds
	node   *node.Node
	width  int
	ids    atomic.Int64
}

const year = 365 * 24 * time.Hour

func newSession(t *testing.T) *session {
	s := &session{t: t, dir: t.TempDir()}
	// Long ago: the deadlines of requests are of today, and must not have passed by the node's clock.
	s.clock.Store(time.Date(2016, 3, 1, 20, 0, 0, 0, time.UTC).UnixMilli())
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = filepath.Join(s.dir, "data"), "127.0.0.1:0", ""
	c.Policy, c.PolicyPoll = filepath.Join(s.dir, "policy.yaml"), time.Hour
	c.Logger, c.Now = slog.New(slog.DiscardHandler), s.now
	// Nothing happens by itself.
	c.Runtime.IdleAfter, c.Runtime.CompactAfter = 100*year, 100*year
	c.Runtime.SnapshotEvery = 10
	c.Archiver.ScanEvery, c.Archiver.After, c.Archiver.SnapshotAfter = year, 100*year, 0
	s.config = c
	s.write("policy.yaml", "version: first\ndefault_plan: standard\nplans: {standard: {devices: 2}}\n")
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *session) now() time.Time { return time.UnixMilli(s.clock.Load()).UTC() }

func (s *session) start() {
	s.t.Helper()
	n, err := node.Start(context.Background(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.node = n
}

func (s *session) stop() {
	if s.node == nil {
		return
	}
	if err := s.node.Stop(context.Background()); err != nil {
		s.t.Error(err)
	}
	s.node = nil
}

func (s *session) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) directive(d *datadriven.TestData) string {
	switch d.Cmd {
	case "run":
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			out.WriteString(s.run(strings.TrimSpace(line)))
		}
		return s.normal(out.String())
	case "clock":
		return s.setClock(d.CmdArgs[0].Key)
	case "policy":
		s.write("policy.yaml", d.Input+"\n")
		return s.normal(s.run("licensectl policy reload"))
	case "width":
		if _, err := fmt.Sscan(d.CmdArgs[0].Key, &s.width); err != nil {
			s.t.Fatal(err)
		}
	case "restart":
		s.stop()
		s.start()
	case "stop":
		s.stop()
	case "start":
		s.start()
	case "file":
		s.write(d.CmdArgs[0].Key, d.Input+"\n")
	case "talk":
		s.write("talk.jsonl", talk(s.t))
	case "lose-archive":
		s.loseArchive()
	case "damage-snapshot", "damage-root", "damage-event":
		s.damage(d)
	case "rebuilt":
		return s.rebuilt()
	default:
		s.t.Fatalf("unknown directive %s", d.Cmd)
	}
	return ""
}

func (s *session) setClock(to string) string {
	if by, ok := strings.CutPrefix(to, "+"); ok {
		d, err := parseAgo(by)
		if err != nil {
			s.t.Fatal(err)
		}
		s.clock.Add(d.Milliseconds())
	} else {
		at, err := time.Parse(time.RFC3339, to)
		if err != nil {
			s.t.Fatal(err)
		}
		s.clock.Store(at.UnixMilli())
	}
	return s.now().Format(time.RFC3339)
}

// run runs one command line as the program would.
func (s *session) run(line string) string {
	args := quoted.FindAllString(strings.NewReplacer("$DIR", s.dir, "$DATA", s.config.Data).Replace(line), -1)
	for i := range args {
		args[i] = strings.Trim(args[i], `"`)
	}
	if len(args) == 0 || args[0] != "licensectl" {
		s.t.Fatalf("not a command line: %s", line)
	}
	var out bytes.Buffer
	p := &program{
		stdout: &out, stderr: &out, now: s.now, width: func() int { return s.width }, completion: time.Minute,
		newID: func() string { return fmt.Sprintf("id-%d", s.ids.Add(1)) },
		getenv: func(name string) string {
			if name == "LICENSED_SERVER" && s.node != nil {
				return s.node.API().String()
			}
			return ""
		},
	}
	if code := p.run(s.t.Context(), args[1:]); code != 0 {
		fmt.Fprintf(&out, "exit %d\n", code)
	}
	return out.String()
}

var (
	quoted    = regexp.MustCompile(`"[^"]*"|\S+`) // words of a command line
	someUUID  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	somePort  = regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`)
	someSize  = regexp.MustCompile(`[\d.]+ ([KM]i)?B\b`)
	someBytes = regexp.MustCompile(`"segmentBytes": "\d+"`)
)

// normal replaces what differs from run to run.
func (s *session) normal(out string) string {
	out = strings.NewReplacer(s.config.Data, "$DATA", s.dir, "$DIR").Replace(out)
	out = someUUID.ReplaceAllString(out, "UUID")
	out = someSize.ReplaceAllString(out, "SIZE")
	out = someBytes.ReplaceAllString(out, `"segmentBytes": "SIZE"`)
	return somePort.ReplaceAllString(out, "SERVER")
}

// loseArchive puts an empty archive in the place of the node's.
func (s *session) loseArchive() {
	s.t.Helper()
	s.stop()
	if err := os.RemoveAll(filepath.Join(s.config.Data, "archive")); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.config.Data, "archive.id")); err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

// damage flips a bit of a row of a customer.
func (s *session) damage(d *datadriven.TestData) {
	s.t.Helper()
	s.stop()
	aggregate, options := d.CmdArgs[0].Key+":LicenseAggregate", pebble.Options{Logger: s.config.Logger}
	var err error
	switch d.Cmd {
	case "damage-snapshot":
		var n int
		if n, err = pebble.DamageSnapshots(s.t.Context(), s.config.Data, options, aggregate); err == nil && n != 1 {
			err = errors.New("no snapshot")
		}
	case "damage-root":
		err = pebble.DamageRoot(s.t.Context(), s.config.Data, options, aggregate)
	default:
		var sequence uint64
		if sequence, err = strconv.ParseUint(d.CmdArgs[1].Key, 10, 64); err == nil {
			err = pebble.DamageRecord(s.config.Data, options, aggregate, sequence)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

// rebuilt returns the happenings about damaged snapshots.
func (s *session) rebuilt() string {
	s.t.Helper()
	var status licensedv1.ClusterStatus
	if err := protojson.Unmarshal([]byte(s.run("licensectl cluster -o json")), &status); err != nil {
		s.t.Fatal(err)
	}
	var out strings.Builder
	for _, h := range status.Happenings {
		if h.Kind == licensedv1.HappeningKind_HAPPENING_KIND_SNAPSHOT_DAMAGED {
			fmt.Fprintln(&out, h.Text)
		}
	}
	return s.normal(out.String())
}

// talk returns the puzzle of the talk as an export: a licence acquired and released on the first of May,
// and renewed a month later by a service without our rules.
func talk(t *testing.T) string {
	t.Helper()
	day := func(month time.Month, d int) time.Time { return time.Date(2017, month, d, 17, 23, 0, 903e6, time.UTC) }
	terms := &licensedv1.LicenseTerms{
		StudioId: "netflix", AcquiredAtMs: day(5, 1).UnixMilli(), ExpiresAtMs: day(6, 1).UnixMilli(), Released: true,
	}
	renewed := &licensedv1.LicenseTerms{
		StudioId: "netflix", AcquiredAtMs: day(5, 1).UnixMilli(), ExpiresAtMs: day(7, 1).UnixMilli(),
		Released: true, Renewals: 1,
	}
	var out strings.Builder
	line := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	line(exportHeader{Version: exportVersion})
	for i, e := range []struct {
		at      time.Time
		about   string
		order   uint64
		value   proto.Message
		command string
		index   uint32
		count   uint32
	}{
		{day(5, 1), "iPhone", 0, &licensedv1.DeviceActivated{}, "acquire", 0, 4},
		{day(5, 1), "iPhone/HouseOfCards", 0, &licensedv1.LicenseCreated{}, "acquire", 1, 4},
		{
			day(5, 1), "iPhone/HouseOfCards", 1,
			&licensedv1.LicenseAcquired{StudioId: "netflix", ExpiresAtMs: day(6, 1).UnixMilli()}, "acquire", 2, 4,
		},
		{day(5, 1), "iPhone/HouseOfCards", 2, &licensedv1.TitleDownloaded{}, "acquire", 3, 4},
		{day(5, 1), "iPhone/HouseOfCards", 3, &licensedv1.LicenseReleased{License: terms}, "release", 0, 1},
		{day(6, 1), "iPhone/HouseOfCards", 4, &licensedv1.LicenseRenewed{License: renewed}, "renew", 0, 1},
	} {
		data, err := messages.AppendEvent(nil, e.value)
		if err != nil {
			t.Fatal(err)
		}
		r := persistence.Record{
			Sequence: uint64(i + 1), Index: e.index, Count: e.count, CommandID: e.command, IssuedAt: e.at,
			AggregateID: e.about, Order: e.order,
			Time:   e.at,
			Mapper: messages.EventMapper(e.value),
			Data:   data,
			Header: persistence.Header{PolicyVersion: "of-the-talk"},
		}
		line(map[string]any{
			"customerId": "Bayley", "sequence": i + 1, "commandIndex": e.index, "commandCount": e.count,
			"record": base64.StdEncoding.EncodeToString(persistence.AppendRecord(nil, &r)),
		})
	}
	line(customerEnd{CustomerID: "Bayley", End: true, Events: 6})
	line(exportEnd{End: true, Customers: 1, Events: 6})
	return out.String()
}
