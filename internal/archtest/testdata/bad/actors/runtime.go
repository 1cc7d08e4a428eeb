package actors

import (
	"os"
	"testing" // want "production code brings no tests along"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/persistence" // want "only the actors of protoactor are used"
	"github.com/asynkron/protoactor-go/remote"      // want "only the actors of protoactor are used"
	"github.com/hashicorp/memberlist"               // want "gossip has one home"

	"licensed/persistence/pebble" // want "runtime knows only the contract of stores" "one place puts it together"
)

// The shell may use the clock, and a comment may speak of licences.
var now = time.Now
