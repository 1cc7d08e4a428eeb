package pebble

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/actors" // want "stores know nothing above them"
	"licensed/persistence/internal/wire"
	"licensed/persistence/memory" // want "stores are strangers to each other"
	"licensed/persistence/pebble/keys"
)
