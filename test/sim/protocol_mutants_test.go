package sim

// protocolMutants are bugs of leases and shards.
var protocolMutants = []mutant{
	{"count a lease from the reply of its renewal", "R1", []edit{{
		"cluster/lease/holder.go", "h.moved(h.latest, in.Now)", "h.moved(in.Now, in.Now)",
	}}},
	{"count a lease from the read that showed its renewal", "R1", []edit{{
		"cluster/lease/holder.go", "h.moved(h.eldest, in.Now)", "h.moved(in.Now, in.Now)",
	}}},
	{"use a lease to the end of its TTL", "R1", []edit{{
		"cluster/lease/clock.go", "return t.TTL - t.Allowance", "return t.TTL + t.Allowance",
	}}},
	{"take a shard without marking its owner dead", "R2", []edit{{
		"cluster/ownership/plan.go", "s.row.Owner.IsZero() || m.dead[s.row.Owner]:", "s.row.Owner.IsZero() || m.dead != nil:",
	}}},
	{"mark dead without patience", "R2", []edit{{
		"cluster/lease/watch.go", "w.over || now.Sub(w.since) >= w.timing.patience()", "w.over || now.Sub(w.since) >= w.timing.TTL/2",
	}}},
	{"mark dead without the allowance", "R2", []edit{{
		"cluster/lease/clock.go", "return t.TTL + t.Allowance", "return t.TTL - t.Allowance",
	}}},
	{"count patience from before a sign of life", "R2", []edit{{
		"cluster/lease/watch.go", "w.seen, w.row, w.since = true, in.Row, in.Now", "if w.row = in.Row; !w.seen {\n\t\t\tw.seen, w.since = true, in.Now\n\t\t}",
	}}},
	{"believe a gossiped death without reading the lease row", "R2", []edit{{
		"cluster/ownership/machine.go", "\t\tm.watches[at].watch.Poke()\n", "\t\tm.dead[i] = true\n\t\tm.place()\n\t\tm.watches[at].watch.Poke()\n",
	}}},
	{"create a dead row for a stranger", "R2", []edit{{
		"cluster/lease/watch.go", "w.expired(in.Now) && !w.look && !w.absent() {", "w.expired(in.Now) && !w.look {",
	}, {
		"cluster/lease/watch.go", "s.Next.Dead = true", "s.Next.Incarnation, s.Next.Dead = w.incarnation, true",
	}}},
	{"take a row that was heard for the store's", "R3", []edit{{
		"cluster/ownership/shard.go", "\tm.doubted = true\n", "\tm.doubted = true\n\tm.merge(s, row)\n",
	}}},
	{"take a mark of unknown outcome for made", "R2", []edit{{
		"cluster/lease/watch.go", "\tdefault:\n\t\tw.look, w.due = true, in.Now", "\tdefault:\n\t\tw.dead = true",
	}}},
	{"hold a shard before its claim is known", "R3", []edit{{
		"cluster/ownership/shard.go", "m.setGate(s, Gate{Kind: GateExpected})\n\tm.swap(now, s)", "m.setGate(s, Gate{Kind: GateOpen, Epoch: s.next.Epoch})\n\tm.swap(now, s)",
	}}},
	{"take a claim of unknown outcome for made", "R3", []edit{{
		"cluster/ownership/shard.go", "\tdefault:\n\t\ts.due = in.Now\n\t\tm.enqueue(s)\n", "\tdefault:\n\t\tm.merge(s, s.next)\n\t\tm.resolve(in.Now, s)\n",
	}}},
	{"forget a claim of unknown outcome", "R3", []edit{{
		"cluster/ownership/plan.go", "s.row.Owner == m.self && s.row.Epoch > s.released:\n\t\tm.hold(now, s)", "s.row.Owner == m.self && s.row.Epoch > s.released:\n\t\t_ = s",
	}}},
	{"speak until the release is known", "release", []edit{{
		"cluster/ownership/shard.go", "\tm.setGate(s, Gate{Successor: successor})\n", "\tif s.gate.Kind != GateClosing {\n\t\tm.setGate(s, Gate{Successor: successor})\n\t}\n",
	}}},
	{"go on after a release of unknown outcome", "release", []edit{{
		"cluster/ownership/shard.go", "m.claim(now, s, s.row) // superseded", "m.unmove(s)\n\t\t\tm.hold(now, s) // superseded",
	}}},
	{"adopt a shard that was released", "release", []edit{{
		"cluster/ownership/plan.go", "s.row.Owner == m.self && s.row.Epoch > s.released:", "s.row.Owner == m.self:",
	}, {
		"cluster/ownership/shard.go", "\tcase stateReleasing:\n\t\tswitch {\n", "\tcase stateReleasing:\n\t\tswitch {\n\t\tcase s.row == s.old:\n\t\t\tm.unmove(s)\n\t\t\ts.state = stateIdle\n",
	}}},
	{"leave a release of unknown outcome unresolved", "release", []edit{{
		"cluster/ownership/shard.go", "\tdefault:\n\t\ts.due = in.Now\n\t\tm.enqueue(s)\n", "\tcase s.state == stateReleasing:\n\t\tm.unmove(s)\n\t\ts.state = stateIdle\n\tdefault:\n\t\ts.due = in.Now\n\t\tm.enqueue(s)\n",
	}, {
		"cluster/ownership/plan.go", "\tcase s.row.Owner == m.self:\n\t\tm.reclaim(now, s)\n", "\tcase s.row.Owner == m.self:\n",
	}}},
	{"use an epoch again", "epoch", []edit{{
		"cluster/ownership/shard.go", "Epoch: max(old.Epoch, s.above) + 1,", "Epoch: max(old.Epoch, s.above, 1),",
	}}},
	{"resend a renewal of unknown outcome and count from there", "R1", []edit{{
		"cluster/lease/holder.go", "\t\th.look, h.due = true, in.Now\n", "\t\th.due = in.Now\n",
	}, {
		"cluster/lease/holder.go", "h.moved(h.eldest, in.Now)", "h.moved(h.latest, in.Now)",
	}}},
	{"say what was not confirmed", "R9", []edit{{
		"cluster/lease/confirm.go", "err == nil && row.Counter > 0 && !row.Dead", "true",
	}}},
}

// reachMutants are bugs of who may hold shards when some processes do not reach some nodes. None endangers the promise:
// customers are served by nobody, or by a node that nobody reaches.
var reachMutants = []mutant{
	{"drain on one vote", "reach", []edit{{
		"cluster/ownership/reach.go", "majority := votes > len(r.reached) ||", "majority := votes > 0 ||",
	}}},
	{"count votes for ever", "reach", []edit{{
		"cluster/ownership/reach.go", "return now.Sub(v.since) < voteExpiry*m.config.Timing.TTL", "return true",
	}, {
		"cluster/ownership/reach.go", "if !v.read {\n\t\t\tdelete(r.votes, b)\n\t\t}", "_, _ = b, v",
	}}},
	{"take no shard while nobody else is there", "reach", []edit{{
		"cluster/ownership/reach.go", " || m.reach.state == Unproven && m.reach.witnesses == 0", "",
	}, {
		"cluster/ownership/plan.go", "m.placement, m.fallback = placement.NewReached(candidates)", "if m.placement, m.fallback = placement.NewReached(candidates); m.fallback {\n\t\tm.placement, m.fallback = placement.New(nil), false\n\t}",
	}}},
	{"hand over when nobody is reached", "reach", []edit{{
		"cluster/ownership/reach.go", "case majority && m.betterReached(now, votes):", "case majority:",
	}}},
	{"keep shards that most cannot reach", "reach", []edit{{
		"cluster/ownership/reach.go", "case majority && m.betterReached(now, votes):", "case majority && false:",
	}}},
	{"stay accused until the process ends", "reach", []edit{{
		"cluster/ownership/reach.go", "former == Accused && len(r.reached) == 0", "former == Accused",
	}}},
}

// routingMutants are bugs of the way to the owner, which is not part of the simulation.
var routingMutants = []mutant{
	{"say not executed after an attempt of unknown outcome", "commands", []edit{{
		"cluster/routing/routing.go", "if t.info.Unknown == 0 || certain(err) {", "if true {",
	}}},
}

// rosterMutants and mapMutants are bugs of what a process does with hints.
var rosterMutants = []mutant{
	{"believe a gossiped death at a gateway", "hints", []edit{{
		"cluster/roster/roster.go", "\t\t\tr.enqueue(i, e)\n\t\t}\n\t}\n}\n\n// Await", "\t\t\te.state = Dead\n\t\t}\n\t}\n}\n\n// Await",
	}}},
}

var mapMutants = []mutant{
	{"keep a row that was heard, whatever the store says", "hints", []edit{{
		"cluster/shardmap/shardmap.go", "e.at.Before(began) || ownership.Later(e.row, row)", "ownership.Later(e.row, row)",
	}}},
}

// ownershipMutants are bugs of shards that only a rare coincidence brings out. The simulation found this one
// in the product, after some thousand seeds.
var ownershipMutants = []mutant{
	{"hold a late claim while the own lease is given up", "release", []edit{{
		"cluster/ownership/plan.go", "case !m.valid(), m.retiring:", "case !m.valid():",
	}}},
}

// leaseMutants are bugs of leases that only a rare coincidence brings out.
var leaseMutants = []mutant{
	{"count a lease from the retry of its renewal", "R1", []edit{{
		"cluster/lease/holder.go", "h.moved(h.eldest, in.Now)", "h.moved(h.latest, in.Now)",
	}}},
	{"say what a read under way does not cover", "R9", []edit{{
		"cluster/lease/confirm.go", "return c.covered, err", "c.covered, c.waiting = append(c.covered, c.waiting...), nil\n\treturn c.covered, err",
	}}},
}
