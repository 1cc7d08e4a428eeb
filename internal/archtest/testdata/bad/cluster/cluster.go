package cluster

import (
	"github.com/asynkron/protoactor-go/remote" // want "protoactor's remote has one home"
	"github.com/hashicorp/memberlist"

	"licensed/actors/license"      // want "cluster knows no domain"
	"licensed/messages/licensedv1" // want "cluster knows no domain"
)
