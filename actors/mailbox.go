package actors

import (
	"runtime"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// mailbox is an unbounded protoactor mailbox that is small while empty: protoactor's own allocates
// about 700 bytes of queues for each actor, which is as much as an idle customer's state. The runtime
// bounds what is posted.
type mailbox struct {
	mu         sync.Mutex
	user       []any // posted, oldest first
	system     []any
	running    bool
	suspended  bool
	invoker    actor.MessageInvoker
	dispatcher actor.Dispatcher
}

func (m *mailbox) PostUserMessage(message any) {
	m.mu.Lock()
	m.user = append(m.user, message)
	m.schedule()
}

func (m *mailbox) PostSystemMessage(message any) {
	m.mu.Lock()
	m.system = append(m.system, message)
	m.schedule()
}

// schedule starts a run unless there is one. It unlocks.
func (m *mailbox) schedule() {
	start := !m.running
	m.running = true
	m.mu.Unlock()
	if start {
		m.dispatcher.Schedule(m.run)
	}
}

func (m *mailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.invoker, m.dispatcher = invoker, dispatcher
}

func (m *mailbox) Start() {}

func (m *mailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.user)
}

// run hands over what was posted, system messages first, until nothing is left. Only one run is under
// way at a time.
func (m *mailbox) run() {
	throughput := m.dispatcher.Throughput()
	var user []any
	for n := 0; ; n++ {
		if n >= throughput {
			n = 0
			runtime.Gosched()
		}
		m.mu.Lock()
		switch {
		case len(m.system) > 0:
			message := m.system[0]
			m.system = m.system[1:]
			m.mu.Unlock()
			m.invokeSystem(message)
			continue
		case m.suspended || len(user) == 0 && len(m.user) == 0:
			m.user = append(user, m.user...)
			if len(m.user) == 0 {
				m.user = nil
			}
			m.system = nil
			m.running = false
			m.mu.Unlock()
			return
		case len(user) == 0:
			user, m.user = m.user, nil
		}
		m.mu.Unlock()
		message := user[0]
		user[0] = nil
		user = user[1:]
		m.invokeUser(message)
	}
}

func (m *mailbox) invokeSystem(message any) {
	switch message.(type) {
	case *actor.SuspendMailbox:
		m.setSuspended(true)
	case *actor.ResumeMailbox:
		m.setSuspended(false)
	default:
		defer m.escalate(message)
		m.invoker.InvokeSystemMessage(message)
	}
}

func (m *mailbox) invokeUser(message any) {
	defer m.escalate(message)
	m.invoker.InvokeUserMessage(message)
}

func (m *mailbox) setSuspended(s bool) {
	m.mu.Lock()
	m.suspended = s
	m.mu.Unlock()
}

func (m *mailbox) escalate(message any) {
	if reason := recover(); reason != nil {
		m.invoker.EscalateFailure(reason, message)
	}
}
