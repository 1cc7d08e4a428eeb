package main

import (
	"licensed/gateway" // want "programs are flags and signals"
	"licensed/internal/node"
)
