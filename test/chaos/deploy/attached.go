package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"time"

	"go.yaml.in/yaml/v3"

	"licensed/test/chaos/fault"
)

// Attached is a cluster that is present already. What can be done to it is said by its owner, in a file:
//
//	gateways: [http://10.0.0.1:8080, http://10.0.0.2:8080]
//	members:                  # optional: whose resources are watched
//	  - {name: n1, admin: "http://10.0.1.1:8081"}
//	faults:
//	  - name: kill n1
//	    targets: [n1]         # no two faults of one target overlap
//	    inject: ssh n1 sudo systemctl kill -s KILL licensed
//	    heal: ssh n1 sudo systemctl start licensed
//	    hold: 5s              # up to as long; at least half of it
//	    weight: 2
//
// Commands are run by sh; one that fails, or takes longer than eight minutes, is noted in the report. One of heal
// fails the run.
type Attached struct{ config attachment }

type attachment struct {
	Gateways []string `yaml:"gateways"`
	Members  []struct {
		Name  string `yaml:"name"`
		Admin string `yaml:"admin"`
	} `yaml:"members"`
	Faults []ownFault `yaml:"faults"`
}

type ownFault struct {
	Name    string        `yaml:"name"`
	Targets []string      `yaml:"targets"`
	Inject  string        `yaml:"inject"`
	Heal    string        `yaml:"heal"`
	Hold    time.Duration `yaml:"hold"`
	Weight  int           `yaml:"weight"`
}

// NewAttached reads the owner's file.
func NewAttached(data []byte) (*Attached, error) {
	a := &Attached{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&a.config); err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	if len(a.config.Gateways) == 0 {
		return nil, errors.New("attach: gateways: at least one is required")
	}
	for _, g := range a.config.Gateways {
		if u, err := url.Parse(g); err != nil || u.Scheme != "http" || u.Host == "" {
			return nil, fmt.Errorf("attach: gateways: %q is no URL like http://10.0.0.1:8080", g)
		}
	}
	for i, f := range a.config.Faults {
		switch {
		case f.Name == "":
			return nil, fmt.Errorf("attach: fault %d: name is required", i+1)
		case f.Inject == "" || f.Heal == "":
			return nil, fmt.Errorf("attach: fault %q: inject and heal are required", f.Name)
		case len(f.Targets) == 0:
			return nil, fmt.Errorf("attach: fault %q: targets: at least one is required", f.Name)
		case f.Hold <= 0:
			return nil, fmt.Errorf("attach: fault %q: hold must be more than 0", f.Name)
		}
	}
	return a, nil
}

// Start implements Deployment: there is nothing to start.
func (a *Attached) Start(context.Context) error { return nil }

// Stop implements Deployment: it is not ours to stop.
func (a *Attached) Stop(context.Context) error { return nil }

// Gateways implements Deployment.
func (a *Attached) Gateways() []string { return a.config.Gateways }

// Members implements Deployment.
func (a *Attached) Members() (all []Member) {
	for i, g := range a.config.Gateways {
		all = append(all, Member{Name: fmt.Sprintf("gateway %d", i+1), Role: Gateway, API: g})
	}
	for _, m := range a.config.Members {
		all = append(all, Member{Name: m.Name, Role: Node, Admin: m.Admin})
	}
	return all
}

// Notes implements Deployment.
func (a *Attached) Notes() []string {
	return []string{"attached: faults are the owner's commands; failpoints and clocks are not ours to set"}
}

// Coverage implements Deployment.
func (a *Attached) Coverage() map[string]Point { return nil }

// Kinds implements Deployment.
func (a *Attached) Kinds() (kinds []fault.Kind) {
	for _, f := range a.config.Faults {
		kinds = append(kinds, fault.Kind{Name: f.Name, Weight: f.Weight, Make: func(r *rand.Rand) *fault.Fault {
			return &fault.Fault{
				Kind: f.Name, Targets: f.Targets, Hold: f.Hold/2 + time.Duration(r.Int64N(int64(f.Hold/2+1))),
				Inject: shell(f.Inject), Heal: shell(f.Heal),
			}
		}})
	}
	return kinds
}

// shell runs a command of the owner's.
func shell(command string) func(context.Context) error {
	return func(ctx context.Context) error {
		if out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, bytes.TrimSpace(out))
		}
		return nil
	}
}
