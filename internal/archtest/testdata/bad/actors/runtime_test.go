package actors_test

import (
	"testing"

	"licensed/actors/actorstest"
	"licensed/persistence/memory"
)
