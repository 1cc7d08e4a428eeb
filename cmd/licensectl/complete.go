package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// commandVerbs are the verbs that try takes, with their arguments.
var commandVerbs = map[string][]string{
	"acquire":    {"DEVICE", "TITLE"},
	"renew":      {"DEVICE", "TITLE"},
	"release":    {"DEVICE", "TITLE"},
	"play":       {"DEVICE", "TITLE"},
	"deactivate": {"DEVICE"},
	"plan":       {"PLAN"},
	"select":     {"DEVICE..."},
}

// argumentAt returns the name of the argument at a place of a command line, as the usage line has it: CUSTOMER, DEVICE,
// TITLE, PLAN, NODE, VERB or another one; "" if the command takes none there.
func argumentAt(c *cobra.Command, args []string) string {
	var names []string
	for _, word := range strings.Fields(c.Use)[1:] {
		// A word in brackets is an argument that may be left out; a flag has no place.
		if word = strings.Trim(word, "[]"); strings.ToUpper(word) == word && !strings.HasPrefix(word, "-") {
			names = append(names, word)
		}
	}
	if i := slices.Index(names, "VERB"); i >= 0 && len(args) > i {
		names = append(names[:i+1:i+1], commandVerbs[args[i]]...)
	}
	if n := len(names); n > 0 && len(args) >= n && strings.HasSuffix(names[n-1], "...") {
		return strings.TrimSuffix(names[n-1], "...")
	}
	if len(args) >= len(names) {
		return ""
	}
	return strings.TrimSuffix(names[len(args)], "...")
}

// completeArgument completes an argument of a command for a shell, by its name in the usage line.
func (p *program) completeArgument(
	c *cobra.Command, args []string, prefix string,
) ([]string, cobra.ShellCompDirective) {
	customer := ""
	if len(args) > 0 {
		customer = args[0]
	}
	return p.complete(c, argumentAt(c, args), customer, prefix)
}

// complete returns what a word of that name may be. It asks the server, within a time that a user at a prompt accepts,
// and is silent if there is no answer.
func (p *program) complete(
	c *cobra.Command, name, customer, prefix string,
) (ids []string, _ cobra.ShellCompDirective) {
	if name == "FILE" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if p.checkFlags() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), p.completion)
	defer cancel()
	conn, err := p.dial()
	if err == nil {
		ids, err = p.namesOf(ctx, conn, name, customer)
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, prefix) })
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// namesOf returns the values that the server knows for an argument of that name.
func (p *program) namesOf(ctx context.Context, conn *connection, name, customer string) (ids []string, err error) {
	switch name {
	case "CUSTOMER":
		// The prefix is not sent: the API lists ids after one, which need not exist, so the first page is filtered.
		return p.customerPage(ctx, conn, "")
	case "DEVICE", "TITLE", "EXCEPTION":
		known, err := customerOf(ctx, conn, customer)
		if err != nil {
			return nil, err
		}
		if name == "EXCEPTION" {
			for _, e := range known.Exceptions {
				ids = append(ids, fmt.Sprintf("%d\t%s", e.Number, e.Words()))
			}
			return ids, nil
		}
		if name == "DEVICE" {
			for _, d := range known.Devices {
				ids = append(ids, d.DeviceId)
			}
			return ids, nil
		}
		for _, l := range known.Licenses {
			ids = append(ids, l.License.TitleId)
		}
		slices.Sort(ids)
		return slices.Compact(ids), nil
	case "PLAN":
		node, err := conn.admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
		for _, plan := range node.GetPolicyLimits().GetPlans() {
			ids = append(ids, plan.PlanId)
		}
		return ids, err
	case "STUDIO":
		node, err := conn.admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
		for _, studio := range node.GetPolicyLimits().GetStudios() {
			ids = append(ids, studio.StudioId)
		}
		return ids, err
	case "NODE":
		status, err := p.clusterStatus(ctx)
		for _, n := range status.GetNodes() {
			if slices.Contains(n.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) {
				ids = append(ids, n.Name)
			}
		}
		return ids, err
	case "VERB":
		for verb := range commandVerbs {
			ids = append(ids, verb)
		}
		slices.Sort(ids)
	}
	return ids, nil
}

// customerCommand returns a command whose first argument is a customer. Its arguments are completed, and its flags for
// a device, a title and a studio.
func (p *program) customerCommand(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = p.completeArgument
	for _, name := range []string{"device", "title", "studio"} {
		if c.Flags().Lookup(name) == nil {
			continue
		}
		err := c.RegisterFlagCompletionFunc(name, func(
			c *cobra.Command, args []string, prefix string,
		) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.complete(c, strings.ToUpper(name), args[0], prefix)
		})
		if err != nil {
			panic(err) // The flag exists.
		}
	}
	return c
}
