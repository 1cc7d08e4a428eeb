package memory

import (
	"github.com/cockroachdb/pebble/v2/vfs" // want "the engine has one home"
	"github.com/gocql/gocql"               // want "gocql has one home"

	"licensed/persistence"
	"licensed/persistence/persistencetest" // want "production code brings no tests along"
)
