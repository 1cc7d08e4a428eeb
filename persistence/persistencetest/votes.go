package persistencetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"licensed/persistence"
)

// runVotes runs the cases about votes.
func runVotes(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"Vote":            testVote,
		"ConcurrentVotes": testConcurrentVotes,
		"RejectedVote":    testRejectedVote,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// votes returns the votes by accused and voter.
func (f *fixture) votes() map[[2]persistence.Incarnation]persistence.Vote {
	f.Helper()
	all, err := f.store.Votes(f.ctx())
	if err != nil {
		f.Fatalf("votes: %v", err)
	}
	by := map[[2]persistence.Incarnation]persistence.Vote{}
	for _, v := range all {
		by[[2]persistence.Incarnation{v.Accused, v.Voter}] = v
	}
	if len(by) != len(all) {
		f.Errorf("%d votes of %d accused and voters", len(all), len(by))
	}
	return by
}

// wantVotes fails the test unless the store has exactly these votes.
func (f *fixture) wantVotes(want ...persistence.Vote) {
	f.Helper()
	got := f.votes()
	for _, v := range want {
		if g := got[[2]persistence.Incarnation{v.Accused, v.Voter}]; g != v {
			f.Errorf("vote %+v, want %+v", g, v)
		}
	}
	if len(got) != len(want) {
		f.Errorf("%d votes, want %d", len(got), len(want))
	}
}

// testVote: a vote is found by accused and voter; a later one of the same pair replaces
// it. Withdrawing is idempotent.
func testVote(f *fixture) {
	f.wantVotes()
	a := persistence.Vote{Accused: incarnationA, Voter: incarnationB, Name: "gateway one", Beat: 1}
	b := persistence.Vote{Accused: incarnationA, Voter: persistence.Incarnation{7}, Beat: 9}
	mutual := persistence.Vote{Accused: incarnationB, Voter: incarnationA, Name: "node", Beat: 1}
	put := func(v persistence.Vote) {
		f.Helper()
		if err := f.store.PutVote(f.ctx(), v); err != nil {
			f.Fatalf("vote %+v: %v", v, err)
		}
	}
	put(a)
	put(b)
	put(mutual)
	f.wantVotes(a, b, mutual)
	a.Beat, a.Name = 2, "gateway two"
	put(a)
	f.wantVotes(a, b, mutual)
	for range 2 { // also one that is missing
		if err := f.store.WithdrawVote(f.ctx(), a.Accused, a.Voter); err != nil {
			f.Fatalf("withdraw: %v", err)
		}
		f.wantVotes(b, mutual)
	}
	put(a)
	f.wantVotes(a, b, mutual)
}

// testConcurrentVotes: votes of different voters do not get in each other's way.
func testConcurrentVotes(f *fixture) {
	var wg sync.WaitGroup
	want := make([]persistence.Vote, 32)
	for i := range want {
		want[i] = persistence.Vote{
			Accused: incarnationA,
			Voter:   persistence.Incarnation{byte(i + 1)},
			Name:    fmt.Sprint("g", i),
			Beat:    uint64(i),
		}
		wg.Go(func() {
			if err := f.store.PutVote(f.ctx(), want[i]); err != nil {
				f.Errorf("vote: %v", err)
			}
		})
	}
	wg.Wait()
	f.wantVotes(want...)
}

// testRejectedVote: invalid votes are rejected, and leave nothing.
func testRejectedVote(f *fixture) {
	for name, v := range map[string]persistence.Vote{
		"nobody is accused": {Voter: incarnationA}, "nobody votes": {Accused: incarnationA},
		"no text": {Accused: incarnationA, Voter: incarnationB, Name: "\xff"},
		"a beat":  {Accused: incarnationA, Voter: incarnationB, Beat: 1 << 63},
	} {
		if err := f.store.PutVote(f.ctx(), v); !errors.Is(err, persistence.ErrRejected) {
			f.Errorf("%s: %v, want ErrRejected", name, err)
		}
	}
	f.wantVotes()
}
