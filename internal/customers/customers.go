// Package customers reads what a store keeps of customers, below their actors: pages of their ids, and reports on
// damage. The gateway, operators' requests to a running process and the tools for a stopped one share it.
package customers

import (
	"context"
	"fmt"
	"strings"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/doctor"
)

// suffix makes a customer's id that of the aggregate. Actors and stores know aggregates
// only.
const suffix = ":" + license.Name

// Aggregate returns the id of a customer's aggregate.
func Aggregate(customer string) string { return customer + suffix }

// ID returns the customer of an aggregate.
func ID(aggregate string) string { return strings.TrimSuffix(aggregate, suffix) }

// Is reports whether an aggregate is a customer.
func Is(aggregate string) bool { return strings.HasSuffix(aggregate, suffix) }

// List returns up to limit ids of customers with a history, after the last id of the
// former page (empty: from the first). The order is the store's. Errors: those of
// persistence.Journal.
func List(ctx context.Context, store persistence.Journal, after string, limit int) ([]string, error) {
	if after != "" {
		after = Aggregate(after)
	}
	ids, err := store.Aggregates(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		ids[i] = ID(ids[i])
	}
	return ids, nil
}

// NewDoctor returns a doctor of license aggregates, which reports and does not repair;
// cold is nil where there is no archive.
func NewDoctor(store persistence.Journal, cold persistence.Archive, kind *license.Kind) *doctor.Doctor {
	return &doctor.Doctor{
		Hot: store, Cold: cold,
		NewReplay: func(aggregate string) doctor.Replay {
			return actors.NewReplay(kind, ID(aggregate))
		},
	}
}

// severities are those of the API.
var severities = map[doctor.Severity]licensedv1.Severity{
	doctor.Note: licensedv1.Severity_SEVERITY_NOTE, doctor.Warning: licensedv1.Severity_SEVERITY_WARNING,
	doctor.Error: licensedv1.Severity_SEVERITY_ERROR,
}

// Unreadable returns the report about a customer whose newest root cannot be read.
func Unreadable(customer string, damage error) *licensedv1.CustomerReport {
	return &licensedv1.CustomerReport{CustomerId: customer, Findings: []*licensedv1.Finding{{
		Severity: licensedv1.Severity_SEVERITY_ERROR, Check: "roots",
		Message: fmt.Sprintf("the newest root cannot be read, so neither can the history: %v; restore it from a backup",
			damage),
	}}}
}

// Report returns a report in the API's words.
func Report(customer string, r *doctor.Report) *licensedv1.CustomerReport {
	out := &licensedv1.CustomerReport{
		CustomerId:     customer,
		HeadSequence:   r.Head,
		Events:         r.Events,
		ArchivedEvents: r.Archived,
		Roots:          uint32(r.Roots),
		Segments:       uint32(r.Segments), StrayRoots: uint32(r.Strays), SnapshotsEqual: uint32(r.Snapshots),
		LiveStateCompared: r.Live, ReplayedFrom: r.ReplayedFrom,
	}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, &licensedv1.Finding{
			Severity: severities[f.Severity], Check: f.Check, Message: f.Message, FromSequence: f.From,
			ToSequence: f.To, Mended: f.Repaired,
		})
	}
	return out
}
