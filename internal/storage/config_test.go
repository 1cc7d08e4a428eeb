package storage

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPasswordFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(" p@ss/word \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{Store: "cassandra://user:other@h/licensed", StorePasswordFile: path}
	o, err := c.storeOptions()
	if err != nil || o.Username != "user" || o.Password != " p@ss/word " {
		t.Errorf("%q:%q, %v", o.Username, o.Password, err)
	}
	// The archive is in the store's keyspace, with its password.
	if o, ok, err := c.archiveOptions(); err != nil || !ok || o.Password != " p@ss/word " {
		t.Errorf("archive: %q, %t, %v", o.Password, ok, err)
	}
	c.Archive = "cassandra://archivist:apart@h2/archive"
	if o, ok, err := c.archiveOptions(); err != nil || !ok || o.Password != "apart" || o.Hosts[0] != "h2" {
		t.Errorf("archive of its own: %+v, %t, %v", o, ok, err)
	}
}
