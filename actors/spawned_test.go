package actors_test

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/persistence/memory"
)

// TestPanicOfListener lets each function of the listener panic, whenever it hears of one customer. That
// customer is still served, and so does everybody else, each by an actor of its own.
func TestPanicOfListener(t *testing.T) {
	functions := reflect.TypeFor[actors.Listener]()
	for i := range functions.NumField() {
		t.Run(functions.Field(i).Name, func(t *testing.T) { panicsOf(t, i) })
	}
	t.Run("all", func(t *testing.T) {
		all := make([]int, functions.NumField())
		for i := range all {
			all[i] = i
		}
		panicsOf(t, all...)
	})
}

func panicsOf(t *testing.T, functions ...int) {
	panics := make([]atomic.Int64, len(functions))
	s := start(t, memory.New(), func(o *actors.Options) {
		l := reflect.ValueOf(&o.Listener).Elem()
		for n, i := range functions {
			l.Field(i).Set(reflect.MakeFunc(l.Field(i).Type(), func(in []reflect.Value) []reflect.Value {
				if in[0].FieldByName("ID").String() == "Bayley" {
					panics[n].Add(1)
					panic("a bug in a listener")
				}
				return nil
			}))
		}
	})
	execute := func(id, command string, amount uint64) {
		t.Helper()
		_, err := s.Execute(t.Context(), id, add(command, amount))
		if errors.Is(err, actors.ErrNotOwner) { // from the activation of the former epoch
			_, err = s.Execute(t.Context(), id, add(command, amount))
		}
		if err != nil {
			t.Fatalf("%s of %s: %v", command, id, err)
		}
	}
	execute("Bayley", "c1", 1)
	execute("Robin", "c1", 100) // Robin's actor is the last that was made
	if _, left := s.Passivate(t.Context(), "Bayley"); !left {
		t.Fatal("Bayley is still in memory")
	}
	execute("Bayley", "c2", 1)
	execute("Robin", "c2", 100)
	s.authority.epoch.Add(1) // Bayley's activation ends with its next request
	if _, err := s.Query(t.Context(), "Bayley", actors.HeadQuery{}); !errors.Is(err, actors.ErrNotOwner) {
		t.Fatalf("at a later epoch: %v", err)
	}
	execute("Bayley", "c3", 1)
	execute("Robin", "c3", 100)
	if bayley, robin := s.total(t, "Bayley"), s.total(t, "Robin"); bayley != 3 || robin != 300 {
		t.Errorf("totals %d and %d, want 3 and 300", bayley, robin)
	}
	for n, i := range functions {
		if panics[n].Load() == 0 {
			t.Errorf("%s was not called for Bayley: this test does not reach it",
				reflect.TypeFor[actors.Listener]().Field(i).Name)
		}
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Errorf("%d requests in flight", n)
	}
}

// TestFailedActorsAreNotRestarted: protoactor would put the activation that was made last behind the mailbox of the
// actor that failed, and execute one customer's commands on another.
func TestFailedActorsAreNotRestarted(t *testing.T) {
	g := &gate{Journal: memory.New(), opened: true}
	s := start(t, g, nil)
	for _, id := range []string{"Bayley", "Robin"} {
		if _, err := s.Execute(t.Context(), id, add("c1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	g.shut()
	waits := make(chan error, 1)
	go func() {
		_, err := s.Execute(t.Context(), "Bayley", add("waits", 1))
		waits <- err
	}()
	for g.held() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.PanicTwice("Bayley")
	for s.Pending("Bayley") < 3 {
		time.Sleep(time.Millisecond)
	}
	g.open()
	if err := <-waits; err != nil {
		t.Errorf("what was answered before the panic: %v", err)
	}
	// A request that meets the failing actor ends with its deadline, one after it meets a new one.
	command := add("c2", 7)
	for until := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := s.Execute(ctx, "Bayley", command)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("Bayley did not recover: %v", err)
		}
	}
	if bayley, robin := s.total(t, "Bayley"), s.total(t, "Robin"); bayley != 9 || robin != 1 {
		t.Errorf("totals %d and %d, want 9 and 1", bayley, robin)
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Errorf("%d requests in flight", n)
	}
}
