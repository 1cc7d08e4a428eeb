package cluster

import (
	"github.com/asynkron/protoactor-go/remote" // want "protoactor has one home" "only the actors of protoactor are used"
	"github.com/hashicorp/memberlist"

	"licensed/actors/license"      // want "cluster knows no domain"
	"licensed/messages/licensedv1" // want "cluster knows no domain"
)
