package node

import (
	"licensed/actors/actorstest" // want "production code brings no tests along"
	"licensed/persistence/pebble"
	"licensed/persistence/tiered"
)
