package memory_test

import (
	"testing"

	"licensed/actors/actorstest" // want "stores know nothing above them"
	"licensed/persistence/pebble"
)
