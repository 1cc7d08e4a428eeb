package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// maxFacts is the number of facts in one request.
const maxFacts = 500

// syncCommand returns the verb for LicenseService.SyncDevice.
func (p *program) syncCommand() *cobra.Command {
	var file string
	var words []string
	var after uint64
	sent := timeFlag{p: p}
	return newCommand(p, command[*licensedv1.SyncDeviceResponse]{
		use: "sync CUSTOMER DEVICE", short: "Record what happened on a device while it was offline",
		long: "sync records facts of a device: downloads, playbacks and deletions that it reports later.\n" +
			"Each has the device's own running number; facts up to the highest number recorded are ignored,\n" +
			"so facts can be sent again. A file has one fact a line, as JSON:\n" +
			"{\"number\": 1, \"kind\": \"played\", \"title\": \"GlowS01E01\", \"at\": \"2026-03-01T20:15:00Z\"}\n" +
			"Facts are sent in requests of 500.",
		example: "  licensectl sync Bayley iphone --fact 1,played,GlowS01E01,2026-03-01T20:15:00Z\n" +
			"  licensectl sync Bayley iphone --file facts.jsonl\n" +
			"  licensectl sync Bayley iphone --validate-only",
		args: []string{"CUSTOMER", "DEVICE"},
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&file, "file", "", "`FILE` with facts, one a line as JSON; - reads standard input")
			c.Flags().StringArrayVar(&words, "fact", nil,
				"`NUMBER,KIND,TITLE,TIME` of a fact, of the kind downloaded, played or deleted; can be repeated")
			c.Flags().Uint64Var(&after, "after", 0,
				"`NUMBER` of the fact before the first one; records nothing while that one is not recorded (default: not checked)")
			c.Flags().Var(&sent, "sent-at",
				"`TIME` of sending by the device's clock, which corrects a clock that is ahead (default: no correction)")
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.SyncDeviceResponse, error) {
			facts, err := p.readFacts(file, words)
			if err != nil {
				return nil, err
			}
			return p.sync(ctx, c, &licensedv1.SyncDeviceRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
				SentAt:       sent.timestamp(),
				AfterNumber:  after,
			}, facts)
		},
		words: func(r *licensedv1.SyncDeviceResponse, t tense) string {
			s := fmt.Sprintf("%s: %s of %s, %s %s", t.of("synced", "would sync"), r.DeviceId, r.CustomerId,
				terminal.Count(r.Recorded, "fact", "facts"), t.of("recorded", "to record"))
			if r.Unlicensed > 0 {
				s += fmt.Sprintf(" (%d without an active licence)", r.Unlicensed)
			}
			return fmt.Sprintf("%s; the highest number is %d", s, r.HighestNumber)
		},
	})
}

// sync sends facts in as many requests as they need. Each names the last fact of the one before, and the first one of
// them has the id of the command. It returns the last response, with the facts that all of them recorded.
func (p *program) sync(
	ctx context.Context, c *connection, r *licensedv1.SyncDeviceRequest, facts []*licensedv1.Fact,
) (*licensedv1.SyncDeviceResponse, error) {
	slices.SortStableFunc(facts, func(a, b *licensedv1.Fact) int { return cmp.Compare(a.Number, b.Number) })
	recorded, unlicensed := uint32(0), uint32(0)
	for {
		r.Facts = facts[:min(len(facts), maxFacts)]
		facts = facts[len(r.Facts):]
		res, err := c.SyncDevice(ctx, r)
		if err != nil {
			return nil, err
		}
		recorded, unlicensed = recorded+res.Recorded, unlicensed+res.Unlicensed
		if len(facts) == 0 {
			res.Recorded, res.Unlicensed = recorded, unlicensed
			return res, nil
		}
		r.AfterNumber = r.Facts[len(r.Facts)-1].Number
		if !r.ValidateOnly {
			r.CommandId = p.newID()
		}
	}
}

// readFacts reads facts from a file, and adds those that are given as words.
func (p *program) readFacts(file string, words []string) (facts []*licensedv1.Fact, err error) {
	switch file {
	case "":
	case "-":
		facts, err = p.parseFacts(os.Stdin)
	default:
		var f *os.File
		if f, err = os.Open(file); err == nil {
			facts, err = p.parseFacts(f)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return nil, usagef("--file: %v", err)
	}
	for _, w := range words {
		parts := strings.Split(w, ",")
		if len(parts) != 4 {
			return nil, usagef("--fact: %q is not NUMBER,KIND,TITLE,TIME", w)
		}
		number, err := strconv.ParseUint(parts[0], 10, 64)
		if err != nil {
			return nil, usagef("--fact: %q is not a number", parts[0])
		}
		f, err := p.factOf(number, parts[1], parts[2], parts[3])
		if err != nil {
			return nil, usagef("--fact: %v", err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// parseFacts reads facts, one a line as JSON. Empty lines are skipped.
func (p *program) parseFacts(from io.Reader) (facts []*licensedv1.Fact, err error) {
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var line struct {
			Number          uint64
			Kind, Title, At string
		}
		d := json.NewDecoder(strings.NewReader(lines.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		f, err := p.factOf(line.Number, line.Kind, line.Title, line.At)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		facts = append(facts, f)
	}
	return facts, lines.Err()
}

// factOf returns a fact of the words that describe it.
func (p *program) factOf(number uint64, kind, title, at string) (*licensedv1.Fact, error) {
	k, ok := licensedv1.FactKind_value["FACT_KIND_"+strings.ToUpper(kind)]
	if !ok || k == 0 {
		return nil, fmt.Errorf("%q is not downloaded, played or deleted", kind)
	}
	f := timeFlag{p: p}
	if err := f.Set(at); err != nil {
		return nil, err
	}
	return &licensedv1.Fact{Number: number, Kind: licensedv1.FactKind(k), TitleId: title, At: f.timestamp()}, nil
}

// timeFlag is a flag whose value is a time, in the forms of a MOMENT that are times.
type timeFlag struct {
	p  *program
	at time.Time
}

// Set implements pflag.Value.
func (f *timeFlag) Set(s string) error {
	m, err := f.p.parseTime("time", s)
	if err != nil {
		return err
	}
	if f.at = m.time; f.at.IsZero() {
		f.at = f.p.now()
	}
	return nil
}

// String implements pflag.Value.
func (f *timeFlag) String() string {
	if f.at.IsZero() {
		return ""
	}
	return f.at.Format(time.RFC3339Nano)
}

// Type implements pflag.Value.
func (f *timeFlag) Type() string { return "time" }

// bindAcquired adds the flag for the licence that a command means.
func (f *timeFlag) bindAcquired(c *cobra.Command) {
	c.Flags().Var(f, "acquired-at",
		"`TIME` of acquisition of the licence that is meant; nothing changes if it is not the present one (default: present)")
}

// supersededWords describes the result of a command, which changed nothing if it was superseded.
func supersededWords(r interface{ GetSuperseded() bool }, t tense, done string) string {
	if r.GetSuperseded() {
		_, present, _ := strings.Cut(done, ": ")
		return t.of("superseded, nothing changed: ", "superseded, nothing would change: ") + present
	}
	return done
}

// timestamp returns the time, nil if the flag is not given.
func (f *timeFlag) timestamp() *timestamppb.Timestamp {
	if f.at.IsZero() {
		return nil
	}
	return timestamppb.New(f.at)
}
