package gateway

import (
	"net/http"

	"github.com/asynkron/protoactor-go/actor" // want "protoactor has one home"

	"licensed/actors/license"
	"licensed/cluster"            // want "gateway asks aggregates"
	"licensed/cmd/licensed/x"     // want "gateway asks aggregates" "nothing imports a program"
	"licensed/internal/node"      // want "gateway asks aggregates" "parts of a process do not know the whole"
	"licensed/persistence/tiered" // want "gateway asks aggregates" "layers over stores have few users"
)
