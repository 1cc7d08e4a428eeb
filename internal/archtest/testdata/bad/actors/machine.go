package actors

import (
	"os"   // want "state machine has no clock and no I/O"
	"sync" // want "state machine has no clock and no I/O"
	clock "time"

	"google.golang.org/protobuf/proto" // want "no protobuf below the domain"

	"licensed/actors/license" // want "runtime knows only the contract of stores"
	"licensed/persistence"
)

var LicenseLimit = 3 // want "generic code does not speak of licences"

func Step(done chan int) {
	_ = clock.Now()         // want "state machine has no clock and no I/O"
	_ = clock.Unix(0, 0)    // a point in time is no clock
	go clock.Sleep(0)       // want "state machine has no clock and no I/O"
	done <- 1               // want "state machine has no clock and no I/O"
	select {}               // want "state machine has no clock and no I/O"
	var now persistence.Now // another package's Now is none either
	var mu sync.Mutex
}
