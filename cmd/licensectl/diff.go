package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// diffCommand returns the verb that compares two answers of HistoryService.GetState.
func (p *program) diffCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "diff CUSTOMER A [B]", Short: "Show what changed about a customer between two moments",
		Long: "diff compares a customer's state at two moments, B being now unless it is given.",
		Example: "  licensectl diff Bayley 4 12\n  licensectl diff Bayley 2026-03-01\n" +
			"  licensectl diff Bayley -- -24h now",
		Args: exactArgs("CUSTOMER", "A", "[B]"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 2 {
			args = append(args, "now")
		}
		return p.diff(c.Context(), args[0], args[1], args[2])
	}
	return p.customerCommand(c)
}

// change is something that is not the same at both moments. From or To is empty where there was nothing.
type change struct {
	Path string `json:"path"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// diff prints what changed. A gap before either moment is an error: a state that lacks
// events would show changes that never happened.
func (p *program) diff(ctx context.Context, customer, a, b string) error {
	var states [2]*licensedv1.GetStateResponse
	for i, s := range []string{a, b} {
		m, err := p.parseMoment([]string{"A", "B"}[i], s)
		if err != nil {
			return err
		}
		if states[i], err = p.stateAt(ctx, customer, m); err != nil {
			return err
		}
		if gaps := states[i].Gaps; len(gaps) > 0 {
			return incomplete("%s: %s; what changed cannot be told", s, gaps[0].Message)
		}
	}
	changes, err := changesBetween(states[0].State, states[1].State)
	if err != nil {
		return err
	}
	if p.output == outputJSON {
		return p.printJSON(struct {
			From    json.RawMessage `json:"from"`
			To      json.RawMessage `json:"to"`
			Changes []change        `json:"changes"`
		}{terminal.JSON(states[0].Moment), terminal.JSON(states[1].Moment), changes})
	}
	fmt.Fprintf(p.stdout, "%s\nA  %s\nB  %s\n", customer, momentWords(states[0].Moment), momentWords(states[1].Moment))
	if len(changes) == 0 {
		fmt.Fprintln(p.stdout, "nothing changed")
		return nil
	}
	fmt.Fprintln(p.stdout)
	t := p.newTable("", "WHAT", "A", "B")
	for _, c := range changes {
		mark := "~"
		switch {
		case c.From == "":
			mark, c.From = "+", "-"
		case c.To == "":
			mark, c.To = "-", "-"
		}
		t.Add(mark, c.Path, c.From, c.To)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if from, to := states[0].Moment.Sequence, states[1].Moment.Sequence; from < to {
		fmt.Fprintf(p.stdout, "\n%s between: licensectl events %s --from %d --to %d\n",
			terminal.Count(to-from, "event", "events"), customer, from+1, to)
	}
	return nil
}

// changesBetween compares two states field by field, in the order of the paths.
func changesBetween(a, b *licensedv1.CustomerState) ([]change, error) {
	from, to := map[string]string{}, map[string]string{}
	for _, side := range []struct {
		state *licensedv1.CustomerState
		flat  map[string]string
	}{{a, from}, {b, to}} {
		// Through the API's JSON form, so that a field that is added later is compared,
		// too.
		d := json.NewDecoder(bytes.NewReader(terminal.JSON(side.state)))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		flatten("", v, side.flat)
	}
	changes := []change{}
	for path, x := range from {
		if y, ok := to[path]; !ok || x != y {
			changes = append(changes, change{path, x, y})
		}
	}
	for path, y := range to {
		if _, ok := from[path]; !ok {
			changes = append(changes, change{path, "", y})
		}
	}
	sort.Slice(changes, func(i, j int) bool { return changes[i].Path < changes[j].Path })
	return changes, nil
}

// flatten lists the values in a JSON value by their paths. An element of a list is named
// by its ids, not by its place: otherwise an element that was inserted would change all
// those behind it.
func flatten(path string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if strings.HasSuffix(path, "]") &&
				// The name of the studio is in the path of a studio only: licences have
				// the field as a value.
				(name == "deviceId" || name == "titleId" || name == "studioId" && nameOf(v) == inner) {
				continue // The path has it.
			}
			if path != "" {
				name = path + "." + name
			}
			flatten(name, inner, out)
		}
	case []any:
		for _, element := range v {
			flatten(fmt.Sprintf("%s[%s]", path, nameOf(element)), element, out)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}

// nameOf returns the ids of an element of a list.
func nameOf(element any) string {
	fields, _ := element.(map[string]any)
	var ids []string
	for _, name := range []string{"deviceId", "titleId"} {
		if id, ok := fields[name].(string); ok {
			ids = append(ids, id)
		}
	}
	if id, ok := fields["studioId"].(string); ok && len(ids) == 0 {
		ids = append(ids, id)
	}
	return strings.Join(ids, "/")
}
