package actors

import (
	"fmt"
	"time"
)

// Config of the runtime. DefaultConfig gives sensible values; Validate names what is not.
type Config struct {
	// SnapshotEvery is after how many events a new root is written (default 100). More makes recovery
	// read longer and partitions larger; fewer writes more snapshots.
	SnapshotEvery int
	// SnapshotInterval, if not 0, also writes a root when the oldest event since the last one is
	// older than this.
	SnapshotInterval time.Duration
	// Window of remembered commands.
	Window WindowConfig
	// RefusalsPerSecond is the number of refusals of one aggregate that are recorded in a second (default 5);
	// further ones are turned away.
	RefusalsPerSecond int
	// MaxEventBytes is the largest encoded event (default 64 KiB); a command with a larger one is rejected.
	MaxEventBytes int
	// ReadPage is the number of records recovery reads at once (default 256).
	ReadPage int
	// RetryMin and RetryMax bound the growing pause before a write with an unknown outcome is repeated,
	// or a failed read (defaults 20 ms and 1 s). Aggregates differ by up to half of it.
	RetryMin, RetryMax time.Duration
	// ReadAttempts is the number of times that recovery tries to read before it gives up (default 4).
	ReadAttempts int

	// MaxQueue is the number of requests that may wait for one aggregate (default 1024).
	MaxQueue int
	// MaxInFlight is for how many requests callers may wait in the process (default 65536).
	MaxInFlight int
	// MaxPerShard is the number of requests that may wait for aggregates of one shard, those given up included
	// (default 4096). Lower: one shard whose aggregates are stuck takes less of what the process can do for
	// others; higher: a larger burst for one shard is served. It should be at most half of MaxStuck, and at most
	// half of the requests that this process accepts from one other process (8192, see cluster/transport), so that
	// one shard leaves room for others there too. The other limit is not raised instead: each process that
	// connects may use it up, and it holds between releases only if both sides have the same.
	MaxPerShard int
	// StuckAfter is after how long without an outcome from the store an aggregate with requests is stuck, or as soon
	// as a caller gives up on it meanwhile (default 2 s). MaxStuck is the number of requests, those given up included,
	// may wait for all stuck aggregates together (default 16384): more memory and more waiting callers when the
	// store is unavailable, against more aggregates that survive a long pause of it without a refusal.
	StuckAfter time.Duration
	MaxStuck   int
	// CompactAfter is after how much idle time an aggregate is packed into its snapshot bytes
	// (default 2 s). It stays in memory, at a fraction of the size; the next command unpacks it.
	CompactAfter time.Duration
	// IdleAfter is the idle time after which an aggregate is evicted (default 2 min).
	IdleAfter time.Duration
	// MaxResidentBytes is the estimated memory that aggregates may take before the least recently
	// used leave (default: 0, no bound; a node sets a share of its memory).
	MaxResidentBytes int64
	// SweepEvery is the interval between searches for idle aggregates (default 500 ms).
	SweepEvery time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		SnapshotEvery: 100,
		Window: WindowConfig{
			MaxAge:      24 * time.Hour,
			MaxCommands: 1024,
			MinAge:      10 * time.Minute,
			MaxAhead:    5 * time.Minute,
		},
		RefusalsPerSecond: 5,
		MaxEventBytes:     64 << 10,
		ReadPage:          256,
		RetryMin:          20 * time.Millisecond,
		RetryMax:          time.Second,
		ReadAttempts:      4,
		MaxQueue:          1024,
		MaxInFlight:       65536,
		MaxPerShard:       4096,
		StuckAfter:        2 * time.Second,
		MaxStuck:          16384,
		CompactAfter:      2 * time.Second,
		IdleAfter:         2 * time.Minute,
		SweepEvery:        500 * time.Millisecond,
	}
}

// Validate returns an error that names the first field that cannot work.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name string
		ok   bool
		need string
	}{
		{"SnapshotEvery", c.SnapshotEvery >= 1, "at least 1"},
		{"SnapshotInterval", c.SnapshotInterval >= 0, "not negative"},
		{"Window.MaxAge", c.Window.MaxAge > 0, "positive"},
		{"Window.MaxCommands", c.Window.MaxCommands >= 1, "at least 1"},
		{"Window.MinAge", c.Window.MinAge >= 0 && c.Window.MinAge <= c.Window.MaxAge, "between 0 and Window.MaxAge"},
		{"Window.MaxAhead", c.Window.MaxAhead >= 0, "not negative"},
		{"RefusalsPerSecond", c.RefusalsPerSecond >= 1, "at least 1"},
		{"MaxEventBytes", c.MaxEventBytes >= 1, "at least 1"},
		{"ReadPage", c.ReadPage >= 1, "at least 1"},
		{"RetryMin", c.RetryMin > 0 && c.RetryMin <= c.RetryMax, "positive and at most RetryMax"},
		{"ReadAttempts", c.ReadAttempts >= 1, "at least 1"},
		{"MaxQueue", c.MaxQueue >= 1, "at least 1"},
		{"MaxInFlight", c.MaxInFlight >= 1, "at least 1"},
		{"MaxPerShard", c.MaxPerShard >= 1, "at least 1"},
		{"StuckAfter", c.StuckAfter > 0, "positive"},
		{"MaxStuck", c.MaxStuck >= 1, "at least 1"},
		{"CompactAfter", c.CompactAfter > 0, "positive"},
		{"IdleAfter", c.IdleAfter > 0, "positive"},
		{"MaxResidentBytes", c.MaxResidentBytes >= 0, "not negative"},
		{"SweepEvery", c.SweepEvery > 0, "positive"},
	} {
		if !f.ok {
			return fmt.Errorf("runtime configuration: %s must be %s", f.name, f.need)
		}
	}
	return nil
}
