package main

import (
	"context"

	"github.com/spf13/cobra"

	"licensed/messages/licensedv1"
)

// playCommand returns the verb for LicenseService.RecordPlayback.
func (p *program) playCommand() *cobra.Command {
	played, sent := timeFlag{p: p}, timeFlag{p: p}
	return newCommand(p, command[*licensedv1.RecordPlaybackResponse]{
		use: "play CUSTOMER DEVICE TITLE", short: "Record that a downloaded title was played",
		long: "play records that a downloaded title was played, which may count against the title's yearly limit.",
		example: "  licensectl play Bayley iphone GlowS01E01\n" +
			"  licensectl play Bayley iphone GlowS01E01 --command-id c7",
		args: []string{"CUSTOMER", "DEVICE", "TITLE"},
		flags: func(c *cobra.Command) {
			c.Flags().Var(&played, "played-at",
				"`TIME` at which the title was played, by the device's clock; judged as of then (default: now)")
			c.Flags().Var(&sent, "sent-at",
				"`TIME` of sending by the device's clock, which corrects a clock that is ahead (default: no correction)")
		},
		send: func(
			ctx context.Context, c *connection, i issued, args []string,
		) (*licensedv1.RecordPlaybackResponse, error) {
			return c.RecordPlayback(ctx, &licensedv1.RecordPlaybackRequest{
				CustomerId:   i.customer,
				DeviceId:     args[1],
				TitleId:      args[2],
				CommandId:    i.commandID,
				IssuedAt:     i.issuedAt,
				ValidateOnly: i.validateOnly,
				PlayedAt:     played.timestamp(),
				SentAt:       sent.timestamp(),
			})
		},
		words: func(r *licensedv1.RecordPlaybackResponse, t tense) string {
			return licenceWords(t.of("played", "would play"), r.License)
		},
	})
}
