package node_test

import (
	"net/http/httptest"

	"licensed/cmd/licensed/x" // want "nothing imports a program"
)
