package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// commandFlags are those of the verbs that give a command.
type commandFlags struct {
	commandID    string
	issuedAt     string
	validateOnly bool
}

// bind adds the flags to a verb.
func (f *commandFlags) bind(c *cobra.Command) {
	c.Flags().StringVar(&f.commandID, "command-id", "",
		"`ID` of the command; the same id again returns the original result (default: a new UUID, which is shown)")
	c.Flags().StringVar(&f.issuedAt, "issued-at", "", "`TIME` at which the command was issued (default: its arrival)")
	c.Flags().BoolVar(&f.validateOnly, "validate-only", false, "only ask whether it would be allowed; record nothing")
}

// issued is a command about to be given.
type issued struct {
	customer     string
	commandID    string
	issuedAt     *timestamppb.Timestamp
	validateOnly bool
}

// reply is what the replies to commands have in common: the event at which the command is
// recorded, and whether that was done before.
type reply interface {
	proto.Message
	GetSequence() uint64
	GetDuplicate() bool
}

// command is a verb that gives a command: words describes its result in place of a table, or what it would have been.
// args are the names of the arguments, of which the first is the customer.
type command[R reply] struct {
	use, short, long, example string
	args                      []string
	flags                     func(*cobra.Command)
	send                      func(ctx context.Context, c *connection, i issued, args []string) (R, error)
	words                     func(R, tense) string
}

// tense says whether a command was executed or only validated.
type tense bool

const (
	done  tense = false
	would tense = true
)

// of returns the words for an executed command, or those for one that was only validated.
func (t tense) of(executed, validated string) string {
	if t == would {
		return validated
	}
	return executed
}

// newCommand returns the verb with the flags that all commands have.
func newCommand[R reply](p *program, v command[R]) *cobra.Command {
	var f commandFlags
	c := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Example: v.example, Args: exactArgs(v.args...),
		RunE: func(c *cobra.Command, args []string) error { return give(c.Context(), p, &f, v, args) },
	}
	if v.flags != nil {
		v.flags(c)
	}
	f.bind(c)
	return p.customerCommand(c)
}

// give gives a command and prints its reply. The id is chosen here and not by the server,
// so that a command of unknown outcome can be given again.
func give[R reply](ctx context.Context, p *program, f *commandFlags, v command[R], args []string) error {
	i := issued{customer: args[0], commandID: f.commandID, validateOnly: f.validateOnly}
	// With validate_only nothing is recorded that an id could refer to.
	if i.commandID == "" && !i.validateOnly {
		i.commandID = p.newID()
	}
	if f.issuedAt != "" {
		at, err := p.parseMoment("--issued-at", f.issuedAt)
		if err != nil {
			return err
		}
		if at.sequence != 0 {
			return usagef("--issued-at: %q is no time", f.issuedAt)
		}
		// "now" is a time here: the moment at which the command was given.
		if i.issuedAt = at.timestamp(); i.issuedAt == nil {
			i.issuedAt = timestamppb.New(p.now())
		}
	}
	conn, err := p.dial()
	if err != nil {
		return err
	}
	ctx, cancel := p.call(ctx)
	defer cancel()
	res, err := v.send(ctx, conn, i, args)
	// The error names the id of the command, since only with it can the command be given
	// again.
	if err != nil {
		return p.commandFailed(err, i)
	}
	return printReply(p, i, res, v.words)
}

// commandFailed adds the id under which a command whose outcome is not known may be sent again.
func (p *program) commandFailed(err error, i issued) error {
	e := p.explain(err)
	if e.code == exitNotNow && !i.validateOnly {
		again := *e
		again.err = fmt.Errorf("%w; sending it again with --command-id %s is safe", e.err, i.commandID)
		return &again
	}
	return e
}

// printReply prints the reply, with the id of the command: the next call can refer to it.
func printReply[R reply](p *program, i issued, res R, words func(R, tense) string) error {
	if p.output == outputJSON {
		// The reply is nested: its fields are those of the API, and commandId is not
		// among them.
		out := struct {
			CommandID string          `json:"commandId,omitempty"`
			Reply     json.RawMessage `json:"reply"`
		}{i.commandID, terminal.JSON(res)}
		return p.printJSON(out)
	}
	how := fmt.Sprintf("command %s, event %d", i.commandID, res.GetSequence())
	switch {
	case i.validateOnly:
		how = "would be allowed; nothing was recorded"
	case res.GetDuplicate():
		how += ", duplicate of an earlier command; this is the original result"
	case provisional(res):
		how = fmt.Sprintf("command %s, PROVISIONAL: not executed yet; the gateway keeps it and sends it to the node "+
			"of the customer later; send it again with --command-id to learn the outcome", i.commandID)
	}
	_, err := fmt.Fprintf(p.stdout, "%s\n(%s)\n", words(res, tense(i.validateOnly)), how)
	return err
}

// provisional reports whether a command was accepted while its customer's node could not be reached.
func provisional(res any) bool {
	r, ok := res.(interface {
		GetProvisional() *licensedv1.Provisional
	})
	return ok && r.GetProvisional() != nil
}

// licenceWords describes a licence after a command.
func licenceWords(done string, l *licensedv1.License) string {
	s := fmt.Sprintf("%s: %s on %s for %s, expires %s UTC",
		done, l.GetTitleId(), l.GetDeviceId(), l.GetCustomerId(), clock(l.GetExpiresAt()))
	if l.GetRenewals() > 0 {
		s += fmt.Sprintf(", renewed %s", terminal.Count(l.GetRenewals(), "time", "times"))
	}
	if l.GetReleased() {
		s += ", released"
	}
	return s
}

// errNoAnswer is the error of a stream that ended without its last message.
var errNoAnswer = errors.New("the answer was cut off")
