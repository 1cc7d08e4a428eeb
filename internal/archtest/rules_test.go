package archtest

// rule takes something away from a set of packages.
type rule struct {
	// name of the rule, and the reason: what would break if it did not hold.
	name, why string

	// from are the packages whose files must keep the rule, except those of except. "x/..." is x and
	// all below it.
	from, except []string
	// files, if set, narrows from to files of these names.
	files []string
	// tests says that test files must keep the rule too.
	tests bool

	// deny are import paths that must not appear, unless they are among allow.
	deny, allow []string
	// pure forbids the clock, goroutines and channels.
	pure bool
	// word, if set, must not be part of any identifier, in any case.
	word string
	// calls are names that must not be called in files that import of, "x/..." as above.
	calls []string
	of    string
}

// Packages of the module by their place in the picture.
var (
	everything = []string{"licensed/..."}
	stores     = []string{
		"licensed/persistence/memory/...", "licensed/persistence/pebble/...", "licensed/persistence/cassandra/...",
	}
	// What is laid over stores.
	layers = []string{"licensed/persistence/archive/...", "licensed/persistence/tiered/...",
		"licensed/persistence/faulty/...", "licensed/persistence/doctor/..."}

	generic = []string{
		"licensed/actors", "licensed/actors/actorstest", "licensed/persistence/...", "licensed/cluster/...",
	}
	testSupport = []string{
		"licensed/actors/actorstest", "licensed/persistence/persistencetest",
		"licensed/persistence/cassandra/cassandratest",
		"licensed/internal/archtest", "licensed/internal/certs", "licensed/internal/forge", "licensed/internal/harness",
		"licensed/internal/overlay", "licensed/internal/scarce",
		"licensed/test/...",
	}
	// apiOfTools is the API, and what its clients share with the server.
	apiOfTools = []string{
		"licensed/client", "licensed/licensetoken", "licensed/messages/...", "licensed/internal/auditlog",
		"licensed/internal/clusterrates", "licensed/internal/historyjson",
		"licensed/internal/manpages", "licensed/internal/terminal",
		"licensed/internal/tlsfiles", "licensed/internal/verify", "licensed/internal/version",
	}
	plantedBugs = "licensed/internal/planted"
	clockAndIO  = []string{
		"os/...", "net/...", "io/ioutil", "path/filepath", "syscall", "log/...", "database/...",
		"math/rand/...", "crypto/rand", "context", "runtime", "golang.org/x/sys/...",
	}
)

var rules = []rule{
	// The runtime, the stores and the cluster are generic.
	{
		name: "runtime knows only the contract of stores",
		why: "package actors serves every kind of aggregate on every store; what it imported of the domain, " +
			"the API or a " +
			"store would be in the way of the next one",
		from:  []string{"licensed/actors", "licensed/actors/actorstest"},
		deny:  everything,
		allow: []string{"licensed/actors", "licensed/actors/actorstest", "licensed/persistence", plantedBugs},
	},
	{
		name: "stores know nothing above them",
		why: "a store keeps opaque bytes; one that knew the runtime or the domain could not be checked by the " +
			"conformance suite alone",
		from: []string{"licensed/persistence/..."}, tests: true,
		deny: everything, allow: []string{
			"licensed/persistence/...", plantedBugs, "licensed/internal/certs", "licensed/internal/tlsfiles",
		},
	},
	{
		name: "cluster knows no domain",
		why:  "ownership of shards is the same for every kind of aggregate",
		from: []string{"licensed/cluster/..."},
		deny: everything, allow: []string{"licensed/cluster/...", "licensed/actors", "licensed/persistence",
			"licensed/messages/clusterv1", "licensed/internal/budget", "licensed/internal/caller",
			"licensed/internal/networks", plantedBugs},
	},
	{
		name: "generic code does not speak of licences",
		why:  "an identifier that names the domain is where the domain leaks in, even without an import",
		from: generic, tests: true, word: "licen",
	},
	{
		name: "no protobuf below the domain",
		why:  "runtime and stores pass bytes on; another codec must need no change there",
		from: []string{"licensed/actors", "licensed/actors/actorstest", "licensed/persistence/..."}, tests: true,
		deny: []string{"google.golang.org/protobuf/...", "github.com/golang/protobuf/..."},
	},

	// The domain.
	{
		name: "domain knows only runtime and messages",
		why:  "what a licence is must not depend on how it is stored, routed or served",
		from: []string{"licensed/actors/license/..."},
		deny: everything, allow: []string{
			"licensed/actors", "licensed/actors/license/...", "licensed/messages/...", "licensed/persistence",
			plantedBugs,
		},
	},
	{
		name: "domain has no clock and no I/O",
		why: "the same history must always result in the same state, and the same command in the same outcome, " +
			"in a replay years later",
		from: []string{"licensed/actors/license/..."}, except: []string{"licensed/actors/license/policy/policyfile"},
		deny: clockAndIO, pure: true,
	},
	{
		name: "state machine has no clock and no I/O",
		why: "the simulator drives the machine itself; what it did behind the simulator's back would not be " +
			"repeatable by seed",
		from: []string{"licensed/actors"}, files: []string{"machine.go", "decide.go", "recovery.go", "window.go"},
		deny: append([]string{"sync/...", "github.com/asynkron/protoactor-go/..."}, clockAndIO...), pure: true,
	},
	{
		name: "ownership protocol has no clock and no I/O",
		why:  "its races show only in schedules that a simulation chooses; what it did by itself could not be repeated",
		from: []string{"licensed/cluster/lease", "licensed/cluster/ownership", "licensed/cluster/placement"},
		files: []string{
			"holder.go", "watch.go", "confirm.go", "step.go", "participant.go", "plan.go", "shard.go", "placement.go",
		},
		deny: append([]string{"sync/..."}, clockAndIO...), pure: true,
	},
	{
		name: "status of the cluster is a pure function",
		why: "dashboard, tool and alerts show one result; what it did behind its input's back could contradict the " +
			"shard map, and no property test would see it",
		from: []string{"licensed/internal/clusterstatus"}, files: []string{"clusterstatus.go"},
		deny: append([]string{"sync/..."}, clockAndIO...), pure: true,
	},
	{
		name: "parts of a process do not know the whole",
		why:  "a part that imported the composition root could be tested only with a whole process around it",
		from: everything, except: []string{"licensed/internal/node", "licensed/cmd/...", "licensed/test/..."},
		deny: []string{"licensed/internal/node"},
	},
	{
		name: "messages know nothing",
		why:  "they are the vocabulary of all others; an import of theirs would be everybody's",
		from: []string{"licensed/messages/..."}, tests: true,
		deny: everything, allow: []string{"licensed/messages/..."},
	},

	// Above.
	{
		name: "gateway asks aggregates",
		why: "it reaches state through the aggregate's owner only; a gateway that read a store or decided " +
			"ownership would answer without a lease",
		from: []string{"licensed/gateway/..."},
		deny: everything,
		allow: []string{
			"licensed/gateway/...", "licensed/actors", "licensed/actors/license/...", "licensed/messages/...",
			"licensed/licensetoken", "licensed/persistence",
			"licensed/internal/auditlog", "licensed/internal/budget", "licensed/internal/caller",
			"licensed/internal/clusterrates", "licensed/internal/historyjson", "licensed/internal/protolimit",
			plantedBugs,
		},
	},
	{
		name: "dashboard is a client of the API",
		why:  "what people see and do there must be what every client can, and pass the same checks",
		from: []string{"licensed/gateway/dashboard"}, tests: true,
		deny: everything, allow: []string{
			"licensed/gateway/auth", "licensed/gateway/dashboard", "licensed/messages/...", "licensed/internal/budget",
			"licensed/internal/clusterrates", "licensed/internal/historyjson",
		},
	},
	{
		name: "client knows only the API",
		why: "applications import it: what it links, they link, and it must do nothing that clients in other " +
			"languages cannot",
		from: []string{"licensed/client"},
		deny: everything, allow: []string{"licensed/licensetoken", "licensed/messages/licensedv1"},
	},
	{
		name: "verifying a licence needs nothing of the service",
		why:  "player and device teams import it, and it must run without a connection",
		from: []string{"licensed/licensetoken"}, deny: everything,
	},
	{
		name: "one place puts it together",
		why:  "which store a process uses is decided in internal/storage and nowhere else",
		from: everything, except: []string{
			"licensed/internal/storage", "licensed/internal/offline", "licensed/persistence/...", "licensed/test/...",
		},
		deny: stores,
	},
	{
		name: "layers over stores have few users",
		why:  "what reads or moves history behind the owner's back must be found in a minute",
		from: everything, except: []string{
			"licensed/internal/storage", "licensed/internal/customers", "licensed/internal/offline",
			"licensed/internal/host", "licensed/internal/node", "licensed/persistence/...",
			"licensed/test/...",
		},
		deny: layers,
	},
	{
		name: "stores are strangers to each other",
		why: "each is complete, what they share is below persistence/internal, and what is laid over them takes " +
			"the contract",
		from: []string{"licensed/persistence/..."}, deny: stores,
	},
	{
		name:  "programs are flags and signals",
		why:   "what they start is assembled in internal/node, where tests can start it too",
		from:  []string{"licensed/cmd/..."},
		deny:  everything,
		allow: []string{"licensed/cmd/...", "licensed/client", "licensed/internal/...", "licensed/messages/..."},
	},
	{
		name: "licensectl is a client of the API",
		why: "it runs on operators' machines: stores, gossip and actors would triple its size, " +
			"and it must do nothing that other clients cannot",
		from: []string{"licensed/cmd/licensectl"},
		deny: everything, allow: append([]string{"licensed/cmd/licensectl"}, apiOfTools...),
	},
	{
		name: "nothing imports a program",
		why:  "what is worth sharing does not belong below cmd",
		from: everything, except: []string{"licensed/cmd/..."}, tests: true,
		deny: []string{"licensed/cmd/..."},
	},

	// Libraries that have one home.
	{
		name: "gocql has one home", why: "its retries and timestamps must be tamed in one place",
		from: everything, except: []string{"licensed/persistence/cassandra/..."}, tests: true,
		deny: []string{"github.com/gocql/gocql/...", "github.com/apache/cassandra-gocql-driver/..."},
	},
	{
		name: "the engine has one home", why: "a disk error must stop the store, which needs one place that hears " +
			"of it; benchmarks measure what is below it",
		from: everything, except: []string{"licensed/persistence/pebble/...", "licensed/test/bench"}, tests: true,
		deny: []string{"github.com/cockroachdb/pebble/..."},
	},
	{
		name: "protoactor has one home",
		why:  "it runs the actors of aggregates and nothing else; its users must know its traps",
		from: everything, except: []string{"licensed/actors", "licensed/test/bench"}, tests: true,
		deny: []string{"github.com/asynkron/protoactor-go/..."},
	},
	{
		name: "only the actors of protoactor are used",
		why:  "its remote, cluster and persistence lose errors and messages, or own an aggregate twice",
		from: everything, tests: true,
		deny:  []string{"github.com/asynkron/protoactor-go/..."},
		allow: []string{"github.com/asynkron/protoactor-go/actor"},
	},
	{
		name: "traps of protoactor are not called",
		why:  "they lose messages without a word, race or leak",
		from: everything, tests: true, of: "github.com/asynkron/protoactor-go/...",
		calls: []string{"Stash", "UnstashAll", "SetReceiveTimeout", "CancelReceiveTimeout", "Bounded",
			"BoundedDropping", "WithMetricProviders"},
	},
	{
		name: "gossip has one home",
		why:  "it is a hint for speed, and nobody else may take it for the truth about ownership",
		from: everything, tests: true,
		// The siege joins as a stranger, to see that nobody believes it.
		except: []string{"licensed/cluster/...", "licensed/internal/forge", "licensed/test/hostile/siege"},
		deny:   []string{"github.com/hashicorp/memberlist/..."},
	},

	{
		name: "the browser has one home", why: "it is there to test pages, and no program needs one",
		from: everything, except: []string{"licensed/test/browser"}, tests: true,
		deny: []string{"github.com/chromedp/..."},
	},

	// Tests.
	{
		name: "the product does not need the module of tests",
		why: "licensed/test has dependencies that go.mod does not have; a test of the product that imported it " +
			"would not build without go.work",
		from: everything, except: []string{"licensed/test/..."}, tests: true,
		deny: []string{"licensed/test/..."},
	},
	{
		name: "planted bugs sit beside the rules that they break",
		why:  "whoever else imported them could choose one, or link their table into the product",
		from: everything, except: []string{
			"licensed/actors", "licensed/actors/license", "licensed/actors/actorstest", "licensed/persistence/...",
			"licensed/cluster/...", "licensed/gateway", "licensed/gateway/fallback",
			"licensed/internal/storage",
		},
		deny: []string{plantedBugs},
	},
	{
		name: "production code brings no tests along",
		why:  "package testing registers flags, and test doubles have no place in a daemon",
		from: everything, except: testSupport,
		deny: append([]string{
			"testing/...", "net/http/httptest", "github.com/anishathalye/porcupine/...",
			"github.com/cockroachdb/datadriven/...",
		}, testSupport...),
	},
}
