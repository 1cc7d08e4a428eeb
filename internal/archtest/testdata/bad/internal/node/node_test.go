package node_test

import (
	"net/http/httptest"

	"licensed/cmd/licensed/x" // want "nothing imports a program"
	"licensed/test/sim"       // want "the product does not need the module of tests"
)
