package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"licensed/persistence"
)

// ArchiveOff is in place of the archive's directory where there is no archive tier. History stays in the
// hot tier then; what was archived before cannot be read.
const ArchiveOff = "off"

// Config names store and archive.
type Config struct {
	// Store is the URL of a store on Cassandra (cassandra://HOST,HOST/KEYSPACE?PARAMETERS, see
	// docs/guide/cassandra.md); empty for the embedded one in Data.
	Store string
	// StorePasswordFile has the password for Store, in place of one in the URL.
	StorePasswordFile string
	// StoreWait is the time a process that starts waits for a store or archive on Cassandra that cannot be
	// reached; 0 to give up at once.
	StoreWait time.Duration
	// Data is the directory of the embedded store, made if missing.
	Data string
	// Development makes a keyspace and tables that are missing, with one copy of everything, and
	// accepts that risk.
	Development bool
	// Shared is used in place of what Store names, by tests whose processes are goroutines. Its maker closes it.
	Shared persistence.Store

	// Archive is the archive tier: a directory, made if missing, best on another disk; the URL of a
	// keyspace on Cassandra, best one with large disks; ArchiveOff for none; empty for archive/ in Data,
	// or the keyspace of Store.
	Archive string
	// ArchivePasswordFile is to Archive what StorePasswordFile is to Store.
	ArchivePasswordFile string

	// Logger of store and archive.
	Logger *slog.Logger
}

// Validate returns what is wrong with the settings, or nil. An error begins with the name of a setting.
func (c *Config) Validate() error {
	switch {
	case c.Store == "" && c.Data == "":
		return errors.New("data: is required")
	case c.Store != "" && !isCassandra(c.Store):
		return fmt.Errorf("store: %s, and must be the URL of a store, like cassandra://127.0.0.1:9042/licensed",
			beginning(c.Store))
	case strings.Contains(c.Archive, "://") && !isCassandra(c.Archive):
		return fmt.Errorf(
			"archive: %s, and must be a directory or a URL like cassandra://127.0.0.1:9042/licensed_archive",
			beginning(c.Archive),
		)
	}
	if c.Store != "" {
		if _, err := c.storeOptions(); err != nil {
			return err
		}
	}
	_, _, err := c.archiveOptions()
	return err
}

// beginning says what stands where a URL should, or only how it begins if there may be a password in it.
func beginning(url string) string {
	if !strings.Contains(url, "@") {
		return fmt.Sprintf("is %q", url)
	}
	scheme, _, found := strings.Cut(url, "://")
	if !found || strings.ContainsAny(scheme, ":@") {
		return "does not begin with a scheme"
	}
	return fmt.Sprintf("begins with %q", scheme+"://")
}

// ArchiveDir returns the directory of the archive, "" if it has none.
func (c *Config) ArchiveDir() string {
	switch {
	case c.Archive == ArchiveOff, isCassandra(c.Archive), c.Archive == "" && c.Store != "":
		return ""
	case c.Archive == "":
		return filepath.Join(c.Data, "archive")
	}
	return c.Archive
}

// OnCassandra reports whether store or archive are on Cassandra.
func (c *Config) OnCassandra() bool { return c.Store != "" || isCassandra(c.Archive) }
