package main

import (
	"licensed/gateway" // want "programs are flags and signals"
	"licensed/internal/node"
	"licensed/internal/planted" // want "planted bugs sit beside the rules that they break"
)
