// Package siege attacks a cluster of this machine in the ways that reviews tried, and says which attack succeeded.
//
// # The model
//
// A site is a cluster with all its protection: certificates on each port, callers that must prove who they are, a key
// for gossip. An [Attack] is one thing that an attacker does, and what must come of it. The attacks run one after the
// other, each with a good client beside it: an attack also succeeds when the good client is not served, when a process
// ends, or when it takes too much memory. At the end all that processes wrote and answered is searched for canaries:
// secrets that the siege itself made up.
//
// Attacks come from another address than the good client. Settings that a former release does not know are left out, so
// that the same siege tells what that release withstood.
package siege

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"licensed/test/hostile"
)

// Attack is one thing that an attacker does.
type Attack struct {
	// Group and Name of the attack, for people; unique together.
	Group, Name string
	// Expect is what must come of it, for people.
	Expect string
	run    func(ctx context.Context, s *siege) (Outcome, error)
}

// Outcome is what came of an attack.
type Outcome struct {
	// Breached says that it succeeded.
	Breached bool `json:"breached"`
	// Skipped says that the release cannot be attacked like this.
	Skipped bool `json:"skipped,omitempty"`
	// Seen is what was seen, for people.
	Seen string `json:"seen"`
}

func held(format string, arguments ...any) Outcome {
	return Outcome{Seen: fmt.Sprintf(format, arguments...)}
}

func breached(format string, arguments ...any) Outcome {
	return Outcome{Breached: true, Seen: fmt.Sprintf(format, arguments...)}
}

// Result of an attack.
type Result struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	Expect string `json:"expect"`
	Outcome
	// Good is how the good client was served meanwhile.
	Good Service `json:"good"`
	// PeakMiB is the most memory that any process had so far.
	PeakMiB int64 `json:"peak_mib"`
}

// Report of a siege.
type Report struct {
	// Version of the binary, and the settings that it does not know.
	Version string    `json:"version"`
	Unknown []string  `json:"unknown,omitempty"`
	Time    time.Time `json:"time"`
	// Nodes and Gateways of the cluster.
	Nodes    int `json:"nodes"`
	Gateways int `json:"gateways"`
	// Alone is how the good client was served without an attack.
	Alone   Service  `json:"alone"`
	Results []Result `json:"results"`
}

// Breaches returns the attacks that succeeded.
func (r *Report) Breaches() (all []Result) {
	for _, one := range r.Results {
		if one.Breached {
			all = append(all, one)
		}
	}
	return all
}

// siege is a siege in progress.
type siege struct {
	*site
	good *goodClient

	mu      sync.Mutex
	answers strings.Builder // what attackers were answered
}

// maxGrowth is how much memory a process may take beyond what it had, in bytes: requests may have 256 MiB by default.
const maxGrowth = 384 << 20

// mustServe is the share of requests of the good client that must be served.
const mustServe = 0.99

// Run besieges a cluster. Errors: it could not be started, or an attack could not be carried out.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if o.Hold == 0 {
		o.Hold = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	o.Log("starting %d nodes and %d gateways", o.Nodes, o.Gateways)
	s := &siege{}
	if s.site, err = start(ctx, o); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	report = &Report{Version: version(ctx, o.Binary), Unknown: s.unknown(), Time: time.Now().UTC(), Nodes: o.Nodes,
		Gateways: o.Gateways}
	if s.good, err = s.startGood(ctx); err != nil {
		return report, err
	}
	defer s.good.stop()
	if err := s.settle(ctx); err != nil {
		return report, err
	}
	base, err := s.peaks()
	if err != nil {
		return report, err
	}
	began := s.good.mark()
	hostile.Wait(ctx, o.Hold)
	report.Alone = s.good.since(began)
	for _, a := range Attacks() {
		if len(o.Only) > 0 && !slices.ContainsFunc(o.Only, func(part string) bool {
			return strings.Contains(a.Group+": "+a.Name, part)
		}) {
			continue
		}
		result, err := s.attack(ctx, a, base)
		if err != nil {
			return report, fmt.Errorf("%s: %s: %w", a.Group, a.Name, err)
		}
		report.Results = append(report.Results, result)
		word := "held"
		if result.Breached {
			word = "BREACHED"
		}
		o.Log("%s: %s: %s: %s; good client: %s", a.Group, a.Name, word, result.Seen, result.Good)
	}
	return report, nil
}

// attack runs one attack, and judges it.
func (s *siege) attack(ctx context.Context, a Attack, base map[string]int64) (Result, error) {
	began := s.good.mark()
	outcome, err := a.run(ctx, s)
	if err == nil {
		err = s.good.await(ctx, began)
	}
	if err != nil {
		return Result{}, err
	}
	r := Result{Group: a.Group, Name: a.Name, Expect: a.Expect, Outcome: outcome, Good: s.good.since(began)}
	breach := func(format string, arguments ...any) {
		r.Breached, r.Seen = true, fmt.Sprintf(format, arguments...)+"; "+r.Seen
	}
	if share := r.Good.share(); share < mustServe {
		breach("the good client was not served (%s)", short(s.good.lastError()))
	}
	select {
	case accident := <-s.accidents:
		breach("%v", accident)
		return r, nil // The rest would say the same.
	default:
	}
	peaks, err := s.peaks()
	for _, m := range s.members {
		r.PeakMiB = max(r.PeakMiB, peaks[m.name]>>20)
		if grown := peaks[m.name] - base[m.name]; grown > maxGrowth {
			breach("%s took %d MiB", m.name, grown>>20)
			base[m.name] = peaks[m.name] // Later attacks are not to blame.
		}
	}
	return r, err
}

// peaks returns the most memory that each process had, in bytes.
func (s *siege) peaks() (map[string]int64, error) {
	all := make(map[string]int64)
	for _, m := range s.members {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", m.name, err)
		}
		_, after, _ := strings.Cut(string(status), "VmHWM:")
		fields := strings.Fields(after)
		if len(fields) == 0 {
			return nil, fmt.Errorf("memory of %s: the process has ended", m.name)
		}
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", m.name, err)
		}
		all[m.name] = kib << 10
	}
	return all, nil
}

// answered keeps what an attacker was told, to look for secrets.
func (s *siege) answered(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers.Len() < keptBytes {
		s.answers.WriteString(text)
		s.answers.WriteByte('\n')
	}
}

// unknown returns the settings of protection that the binary does not have.
func (s *site) unknown() (all []string) {
	for _, name := range []string{
		"auth-file", "admin-tls-cert", "admin-token-file", "gossip-key-file", "node-tls-ca", "node-sans",
		"gateway-sans", "tls-cert", "audit-file", "new-customers", "accept-risk",
	} {
		if !s.known["gateway "+name] {
			all = append(all, name)
		}
	}
	return all
}

// Attacks returns all attacks, in the order in which they run.
func Attacks() []Attack {
	return slices.Concat(tokenAttacks(), webAttacks(), smugglingAttacks(), gossipAttacks(), bombAttacks(),
		floodAttacks(), certificateAttacks(), canaryAttacks())
}

// Write writes a report for [Read].
func (r *Report) Write(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(name), append(b, '\n'), 0o600)
}

// Read reads a report.
func Read(name string) (*Report, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}
