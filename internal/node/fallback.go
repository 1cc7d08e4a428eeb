package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/cluster"
	"licensed/gateway/fallback"
	"licensed/persistence"
)

// FallbackConfig is how a gateway accepts commands while their owners cannot be reached.
type FallbackConfig struct {
	// Dir is the directory of the journal, of this gateway alone; empty: no command is accepted then.
	Dir string
	// After is the time that an owner has to answer a command that can be deferred.
	After time.Duration
	// MaxBytes bounds the commands in the journal.
	MaxBytes int64
	// AnswersBytes bounds the answers that are kept for when neither owner nor store can be reached.
	AnswersBytes int64
}

// openFallback opens the journal of deferred commands, and hands them in until the process stops. It returns nil if
// there is to be none.
func (n *Node) openFallback() (*fallback.Fallback, error) {
	c := &n.config.Fallback
	if c.Dir == "" {
		return nil, nil
	}
	journal, damaged, err := fallback.OpenJournal(c.Dir, c.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("fallback-dir: %w", err)
	}
	if damaged > 0 {
		n.log.Error("damaged deferred commands set aside", "commands", damaged, "dir", c.Dir)
	}
	if u := journal.Usage(); u.Commands > 0 {
		n.log.Warn("deferred commands found", "commands", u.Commands, "customers", u.Customers, "since", u.Since.UTC())
	}
	f := fallback.New(fallback.Config{
		Journal: journal, Execute: n.aggregates.Execute, Query: n.aggregates.Query,
		Owner: n.ownerOf, Terms: n.provisional, Patience: c.After, Timeout: n.config.MaxDeadline,
		FormerBytes: c.AnswersBytes, Now: n.config.Now, Registry: n.registry, Logger: n.log,
	})
	n.parts.Push("journal of deferred commands", func(context.Context) error { return journal.Close() })
	n.parts.Go("deferred commands", f.Run)
	return f, nil
}

// ownerOf returns the owner of a customer's shard, as far as this process knows; zero if there is one process only.
func (n *Node) ownerOf(customer string) persistence.Incarnation {
	s, ok := n.shared.Get()
	if !ok {
		return persistence.Incarnation{}
	}
	row, _ := s.rows.Row(cluster.ShardOf(customer+":"+license.Name, s.info.Shards))
	return row.Owner
}

// storedHead returns where a customer's history ends in the store, for gateway.Config.
func (n *Node) storedHead(ctx context.Context, customer string) (persistence.Head, error) {
	return actors.StoredHead(ctx, n.storage.Journal(), customer+":"+license.Name, n.config.Runtime.ReadPage)
}

// provisional returns what the policy in force allows for a title.
func (n *Node) provisional(title string) fallback.Terms {
	p := n.policy.Kind().Policy()
	of := p.Title(title)
	return fallback.Terms{
		Renewals: p.Provisional().Renewals, For: p.Provisional().For, Until: of.AvailableUntil, PlayHours: of.PlayHours,
	}
}

// validate returns what is wrong with the settings, or nil.
func (c *FallbackConfig) validate(signed bool) error {
	if c.Dir != "" && !signed {
		return errors.New("fallback-dir: needs --license-keys: " +
			"commands are deferred for devices that show their signed licence")
	}
	return nil
}
