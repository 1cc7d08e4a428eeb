package membership

import (
	"errors"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
)

// renewalJoins is the time a new identity joins others before it replaces the former one.
const renewalJoins = time.Second

// renewals gives the process another identity when it must give up the one it has, at most once in JoinEvery.
func (m *Membership) renewals() {
	for {
		select {
		case <-m.context.Done():
			return
		case <-m.doubted:
			if m.run().guard.doubted.Load() {
				m.renew()
			}
		}
		select {
		case <-m.context.Done():
			return
		case <-time.After(m.config.JoinEvery):
		}
	}
}

// renew continues under another id, at the same address and with the same meta. Other processes may believe a forged
// message about the present one that it cannot overrule: memberlist's counter ends. The new identity replaces the
// former one after it has joined, so that the list of members has no gap. Until then it needs to hear nothing but the
// answers to what it asks.
func (m *Membership) renew() {
	if !m.swapping.TryLock() {
		return // The process leaves.
	}
	defer m.swapping.Unlock()
	former, r := m.run(), m.newRun()
	if err := r.create(); err != nil {
		m.config.Log.Warn("gossip identity not renewed, trying again", "error", err)
		_ = r.guard.Shutdown()
		signal(m.doubted)
		return
	}
	joined := make(chan struct{})
	addresses := append(m.some(triedTogether), m.missing()...)
	m.running.Go(func() { m.tryAll(r, addresses); close(joined) })
	patience := time.NewTimer(renewalJoins)
	defer patience.Stop()
	select {
	case <-joined:
	case <-patience.C:
	case <-m.context.Done():
	}

	m.mu.Lock()
	m.current = r
	for id, p := range former.members {
		if r.members[id] == nil && id != former.id {
			m.lose(p)
		}
	}
	m.mu.Unlock()
	err := errors.Join(former.guard.detach(), former.list.Shutdown())
	r.guard.start()
	m.config.Log.Warn("gossip identity renewed: a forged message about this member could not be overruled; "+
		"set --gossip-key-file",
		"former_id", former.id, "id", r.id)
	signal(m.changed)
	signal(m.renewed)
	if err != nil {
		m.config.Log.Debug("membership: former identity not ended", "error", err)
	}
	m.running.Go(func() { r.disown(former.id) })
}

// disowned is the number of times that others are told that a former id is gone, and disownEvery the time between.
// Others may renew their identities at the same time, and hear nothing meanwhile.
const (
	disowned    = 4
	disownEvery = 500 * time.Millisecond
)

// disown tells others that a former id of this process is gone, in a way that no forged message overrules. Members
// that miss it find out with their next probe.
func (r *run) disown(former string) {
	if r.m.config.Keys != nil {
		return // Only a member could have forged a message.
	}
	var message []byte
	err := codec.NewEncoderBytes(&message, &codec.MsgpackHandle{}).Encode(accusation{maxIncarnation, former, former})
	b, labelled := memberlist.AddLabelHeaderToPacket(append([]byte{typeDead}, message...), r.m.config.Label)
	if err = errors.Join(err, labelled); err != nil {
		r.m.config.Log.Debug("membership: end of a former identity not announced; other members find out later",
			"error", err)
		return
	}
	for range disowned {
		// A member lists who joined it only after it has answered: told at once, it would list neither id for a moment.
		select {
		case <-r.m.context.Done():
			return
		case <-time.After(disownEvery):
		}
		for _, address := range r.m.some(triedTogether) {
			_, _ = r.guard.WriteToAddress(b, memberlist.Address{Addr: address})
		}
	}
}
