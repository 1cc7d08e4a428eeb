package node

import (
	"licensed/actors/actorstest"  // want "production code brings no tests along"
	"licensed/persistence/pebble" // want "one place puts it together"
	"licensed/persistence/tiered"
)
