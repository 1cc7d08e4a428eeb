package model

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// amount is a limit in a policy file: a number or "unlimited".
type amount int

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *amount) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "unlimited" {
		*a = Unlimited
		return nil
	}
	i, err := strconv.Atoi(n.Value)
	if err != nil || i < 0 {
		return fmt.Errorf("line %d: %q is no limit", n.Line, n.Value)
	}
	*a = amount(i)
	return nil
}

// limit returns the amount, Unlimited if the file has none.
func (a *amount) limit() int {
	if a == nil {
		return Unlimited
	}
	return int(*a)
}

// file is the part of a policy file that the model knows.
type file struct {
	Version       string `yaml:"version"`
	Days          int    `yaml:"licence_days"`
	Counts        string `yaml:"yearly_counts"`
	Deactivations amount `yaml:"deactivations_per_year"`
	DefaultPlan   string `yaml:"default_plan"`
	Plans         map[string]struct {
		Devices   uint32  `yaml:"devices"`
		Titles    *amount `yaml:"titles_per_device"`
		Downloads *amount `yaml:"downloads_per_month"`
		Grace     *amount `yaml:"grace_days"`
	} `yaml:"plans"`
	Studios map[string]struct {
		Downloads amount `yaml:"downloads"`
	} `yaml:"studios"`
	Titles map[string]struct {
		Studio string    `yaml:"studio"`
		Yearly amount    `yaml:"yearly_limit"`
		Until  time.Time `yaml:"available_until"`
		Hours  int       `yaml:"hours_after_first_play"`
	} `yaml:"titles"`
}

// Parse reads rules from a policy file as [Rules.YAML] writes them. What the model does not know is an
// error, not passed over: the service would obey it.
func Parse(data []byte) (Rules, error) {
	var f file
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return Rules{}, fmt.Errorf("policy: %w", err)
	}
	switch {
	case f.Counts != "both":
		return Rules{}, fmt.Errorf("policy: yearly_counts is %q, the model knows both", f.Counts)
	case f.Version == "" || f.Days < 1 || len(f.Titles) == 0:
		return Rules{}, fmt.Errorf("policy: version, licence_days and titles are required")
	case f.Plans[f.DefaultPlan].Devices == 0:
		return Rules{}, fmt.Errorf("policy: the default plan %q is not among plans", f.DefaultPlan)
	}
	r := Rules{
		Version:       f.Version,
		Period:        time.Duration(f.Days) * 24 * time.Hour,
		Deactivations: int(f.Deactivations),
		DefaultPlan:   f.DefaultPlan,
		Plans:         map[string]Plan{}, Studios: map[string]int{}, Titles: map[string]Title{},
	}
	for id, p := range f.Plans {
		r.Plans[id] = Plan{p.Devices, p.Titles.limit(), p.Downloads.limit(), p.Grace.limit()}
	}
	for id, s := range f.Studios {
		r.Studios[id] = int(s.Downloads)
	}
	for id, t := range f.Titles {
		if _, ok := r.Studios[t.Studio]; !ok {
			return Rules{}, fmt.Errorf("policy: title %s is of studio %q, which is not among studios", id, t.Studio)
		}
		title := Title{Studio: t.Studio, Yearly: int(t.Yearly), Hours: t.Hours}
		if !t.Until.IsZero() {
			title.Until = t.Until.UnixMilli()
		}
		r.Titles[id] = title
	}
	return r, nil
}
