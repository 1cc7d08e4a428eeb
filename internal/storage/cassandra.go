package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"licensed/internal/failpoint"
	"licensed/messages/licensedv1"
	"licensed/persistence/cassandra"
)

// cassandraScheme begins the URL of a store on Cassandra.
const cassandraScheme = "cassandra://"

// developmentCopies is the number of copies a keyspace has that is made for development: one Cassandra node
// is enough then, and a lost disk loses everything.
const developmentCopies = 1

// options returns how to reach Cassandra by a URL, with the password from a file if there is one.
func (c *Config) options(url, passwordFile string) (cassandra.Options, error) {
	o, err := cassandra.ParseURL(url)
	if err != nil {
		return o, err
	}
	if passwordFile != "" {
		if o.Password, err = readPassword(passwordFile); err != nil {
			return o, fmt.Errorf("password file: %w", err)
		}
		first := o.Password
		o.ReadPassword = func() string {
			if password, err := readPassword(passwordFile); err == nil {
				return password
			}
			return first
		}
	}
	if err := o.Validate(); err != nil {
		return o, err
	}
	o.Logger = c.Logger
	if c.Development {
		o.AcceptRisks = append(o.AcceptRisks, cassandra.RiskReplication1)
	}
	return o, nil
}

// readPassword returns the password in a file.
func readPassword(file string) (string, error) {
	password, err := os.ReadFile(file)
	return strings.TrimRight(string(password), "\r\n"), err
}

// storeOptions returns how to reach the store; the settings name one on Cassandra.
func (c *Config) storeOptions() (cassandra.Options, error) {
	o, err := c.options(c.Store, c.StorePasswordFile)
	if err != nil {
		return o, fmt.Errorf("store: %w", err)
	}
	return o, nil
}

// archiveOptions returns how to reach the archive, and whether it is on Cassandra at all.
func (c *Config) archiveOptions() (o cassandra.Options, ok bool, err error) {
	switch {
	case c.Archive == "" && c.Store != "": // The store's own keyspace.
		o, err = c.storeOptions()
	case isCassandra(c.Archive):
		if o, err = c.options(c.Archive, c.ArchivePasswordFile); err != nil {
			err = fmt.Errorf("archive: %w", err)
		}
	default:
		return o, false, nil
	}
	return o, true, err
}

// isCassandra reports whether a setting is the URL of a store on Cassandra.
func isCassandra(url string) bool { return strings.HasPrefix(url, cassandraScheme) }

// openCassandra opens the store on Cassandra. In development it makes what is missing.
func (s *Storage) openCassandra(ctx context.Context) error {
	o, err := s.config.storeOptions()
	if err != nil {
		return err
	}
	store, err := Await(ctx, s.config.StoreWait, s.options.Log, "store", func() (*cassandra.Store, error) {
		// The tables first: Open refuses a keyspace without them.
		if err := s.develop(ctx, o, cassandra.HotSchema); err != nil {
			return nil, err
		}
		return cassandra.Open(ctx, o)
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, store.Close)
	s.Certificates["store"] = o.Certificates
	s.Hot = failpoint.Store(store)
	s.tellRisks(store.Risks())
	location := cassandraLocation(&o)
	s.status = func(context.Context) *licensedv1.StoreStatus {
		st := store.Stats()
		return &licensedv1.StoreStatus{Kind: "cassandra", Location: location, Writes: st.Writes, Syncs: st.Requests}
	}
	s.options.Registry.MustRegister(newCassandraMetrics(store))
	return nil
}

// cassandraLocation returns contact points and keyspace, for people.
func cassandraLocation(o *cassandra.Options) string {
	return strings.Join(o.Hosts, ",") + "/" + o.Keyspace
}

// develop makes keyspace and tables that are missing, in development only: elsewhere an operator says
// where copies belong, and when tables change.
func (s *Storage) develop(ctx context.Context, o cassandra.Options, which cassandra.Schema) error {
	if !s.config.Development {
		return nil
	}
	_, err := cassandra.ApplySchema(ctx, o, which, cassandra.ApplyOptions{
		CreateKeyspace: developmentCopies,
		Progress: func(v cassandra.SchemaVersion) {
			s.options.Log.Warn(fmt.Sprintf(
				"keyspace %s: making version %d (%s) of the %s schema, because this is for development",
				o.Keyspace, v.Version, v.Name, which,
			))
		},
	})
	return err
}

// tellRisks logs what endangers acknowledged events. Store and archive share a Cassandra, and often a keyspace: a risk
// of both is logged once.
func (s *Storage) tellRisks(risks []cassandra.Risk) {
	for _, r := range risks {
		if !slices.Contains(s.risks, r) {
			s.risks = append(s.risks, r)
			s.options.Log.Warn("cassandra risk: "+r.Detail, "risk", r.Name)
		}
	}
}

// SchemaVersion is one version of the tables of a tier.
type SchemaVersion struct {
	// Tier is "hot" or "archive", Location contact points and keyspace.
	Tier, Location string
	cassandra.SchemaVersion
}

// ApplySchema brings the tables of the store, and of the archive if it is on Cassandra, to the version
// that this program needs. Keyspaces that are missing are made, with this many copies in each data centre;
// with 0 copies they must be present. progress hears of each version before it is applied. Any number of
// processes may do so at once. Errors: ErrSchema, ErrCredentials, and those of a Cassandra that cannot be
// reached.
func ApplySchema(ctx context.Context, c *Config, copies int, progress func(SchemaVersion)) ([]SchemaVersion, error) {
	return c.eachSchema(func(o cassandra.Options, which cassandra.Schema) ([]cassandra.SchemaVersion, error) {
		location := cassandraLocation(&o)
		return cassandra.ApplySchema(ctx, o, which, cassandra.ApplyOptions{
			CreateKeyspace: copies,
			Progress:       func(v cassandra.SchemaVersion) { progress(SchemaVersion{string(which), location, v}) },
		})
	})
}

// SchemaStatus returns the versions that the keyspaces of store and archive have, and those that this
// program knows. Errors: as ApplySchema.
func SchemaStatus(ctx context.Context, c *Config) ([]SchemaVersion, error) {
	return c.eachSchema(func(o cassandra.Options, which cassandra.Schema) ([]cassandra.SchemaVersion, error) {
		return cassandra.SchemaStatus(ctx, o, which)
	})
}

// errNoCassandra says that there is nothing with a schema.
var errNoCassandra = errors.New("neither store nor archive is on Cassandra (--store cassandra://HOST/KEYSPACE), " +
	"and nothing else has a schema to apply")

// eachSchema calls f for the tiers that are on Cassandra.
func (c *Config) eachSchema(
	f func(cassandra.Options, cassandra.Schema) ([]cassandra.SchemaVersion, error),
) ([]SchemaVersion, error) {
	var all []SchemaVersion
	add := func(o cassandra.Options, which cassandra.Schema) error {
		state, err := f(o, which)
		for _, v := range state {
			all = append(all, SchemaVersion{string(which), cassandraLocation(&o), v})
		}
		return err
	}
	if c.Store != "" {
		o, err := c.storeOptions()
		if err == nil {
			err = add(o, cassandra.HotSchema)
		}
		if err != nil {
			return all, err
		}
	}
	o, ok, err := c.archiveOptions()
	switch {
	case err != nil:
		return all, err
	case ok:
		err = add(o, cassandra.ArchiveSchema)
	case c.Store == "":
		err = errNoCassandra
	}
	return all, err
}
