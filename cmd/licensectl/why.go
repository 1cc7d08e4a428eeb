package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// whyCommand returns the verb for HistoryService.Why.
func (p *program) whyCommand() *cobra.Command {
	var at, known string
	c := &cobra.Command{
		Use: "why CUSTOMER DEVICE TITLE", Short: "Explain a licence: what led to its state, or to a refusal",
		Long: "why tells in one screen how a licence stands and what made it so: the events about it, its device\n" +
			"and the plan, and the refusals, each with what it did.",
		Example: "  licensectl why Bayley iphone GlowS01E01\n" +
			"  licensectl why Bayley iphone GlowS01E01 --known-at 2026-03-05",
		Args: exactArgs("CUSTOMER", "DEVICE", "TITLE"),
	}
	c.Flags().StringVar(&at, "at", "", "`TIME` to look at, with all that had happened by then (default: now)")
	knownAtFlag(c, &known)
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := p.parseTime("--at", at)
		if err != nil {
			return err
		}
		if m.known, err = p.parseKnownAt(known); err != nil {
			return err
		}
		conn, err := p.dial()
		if err != nil {
			return err
		}
		ctx, cancel := p.call(c.Context())
		defer cancel()
		res, err := conn.history.Why(ctx, &licensedv1.WhyRequest{
			CustomerId: args[0], DeviceId: args[1], TitleId: args[2], Time: m.timestamp(), KnownAt: m.known,
		})
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			err = p.printJSON(res)
		} else {
			p.printWhy(fmt.Sprintf("%s: %s on %s", args[0], args[2], args[1]), res)
		}
		if err == nil && len(res.Gaps) > 0 {
			return incomplete("the history has %s, so the explanation may lack something",
				terminal.Count(len(res.Gaps), "gap", "gaps"))
		}
		return err
	}
	return p.customerCommand(c)
}

// marks tell at a glance what a step did.
var marks = map[licensedv1.WhyEffect]string{
	licensedv1.WhyEffect_WHY_EFFECT_CHANGED: "*", licensedv1.WhyEffect_WHY_EFFECT_REFUSED: "x",
	licensedv1.WhyEffect_WHY_EFFECT_TIME: "~", licensedv1.WhyEffect_WHY_EFFECT_STRANGE: "!",
	licensedv1.WhyEffect_WHY_EFFECT_UNKNOWN: "?",
}

// byWhom tells who gave the command of a step, and the reason.
func byWhom(s *licensedv1.WhyStep) (text string) {
	if s.Principal != "" {
		text = " By " + s.Principal + "."
	}
	if s.Reason != "" {
		text += " Reason: " + s.Reason + "."
	}
	return text
}

// printWhy prints an explanation in two columns: when, and what. A long sentence
// continues below itself, at the terminal's width.
func (p *program) printWhy(subject string, res *licensedv1.WhyResponse) {
	limit := p.width()
	for _, line := range append([]string{subject}, terminal.Wrap(terminal.Escape(res.Verdict), limit)...) {
		fmt.Fprintln(p.stdout, line)
	}
	fmt.Fprintln(p.stdout)
	places := make([]string, len(res.Steps))
	widest := len("EVENT")
	for i, s := range res.Steps {
		switch {
		case s.Sequence == 0:
		case s.Sequence == s.ToSequence:
			places[i] = fmt.Sprint(s.Sequence)
		default:
			places[i] = fmt.Sprintf("%d-%d", s.Sequence, s.ToSequence)
		}
		widest = max(widest, len(places[i]))
	}
	// The width of the columns before the text: time, event, mark, and the spaces between
	// them.
	indent := strings.Repeat(" ", len("2006-01-02 15:04:05")+2+widest+2+2)
	fmt.Fprintf(p.stdout, "%-19s  %*s    WHAT IT DID\n", "TIME (UTC)", widest, "EVENT")
	for i, s := range res.Steps {
		mark := marks[s.Effect]
		if mark == "" {
			mark = " "
		}
		room := 0
		if limit > 0 {
			// Narrower columns would break words in the middle.
			room = max(limit-len(indent), 30)
		}
		at := "-"
		if s.Time != nil {
			at = clock(s.Time)
		}
		for j, line := range terminal.Wrap(terminal.Escape(s.Text+byWhom(s)), room) {
			if j == 0 {
				fmt.Fprintf(p.stdout, "%-19s  %*s  %s %s\n", at, widest, places[i], mark, line)
			} else {
				fmt.Fprintf(p.stdout, "%s%s\n", indent, line)
			}
		}
	}
	fmt.Fprintf(p.stdout,
		"\n* changed the licence  x refused  ~ time passed  ! not what the rules lead to  ? not known\n")
}
