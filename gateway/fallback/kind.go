package fallback

import "licensed/messages/licensedv1"

// kind is a kind of commands that can be deferred.
type kind struct {
	// name is the value of the metrics' label.
	name string
	is   func(c *licensedv1.Command) bool
	// lasting says that the state of the customer tells whether such a command was executed, forever: it may be handed
	// in under another id when the owner has forgotten the commands of its time.
	lasting bool
}

var kinds = []*kind{
	{"renew", func(c *licensedv1.Command) bool { return c.GetRenewLicense() != nil }, false},
	// A licence that is named by its acquisition is released once.
	{"release", func(c *licensedv1.Command) bool { return c.GetReleaseLicense() != nil }, true},
	// A unit of an allowance is settled once, and an allowance returned once.
	{"acquire", func(c *licensedv1.Command) bool { return c.GetAcquireLicense().GetAllowance() != 0 }, true},
	{"return", func(c *licensedv1.Command) bool { return c.GetReturnAllowance() != nil }, true},
	// A device numbers its facts.
	{"sync", func(c *licensedv1.Command) bool { return c.GetSyncDevice() != nil }, true},
}

// kindOf returns the kind of a command; nil if it cannot be deferred.
func kindOf(c *licensedv1.Command) *kind {
	for _, k := range kinds {
		if k.is(c) {
			return k
		}
	}
	return nil
}
