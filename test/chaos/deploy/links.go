package deploy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"licensed/test/chaos/fault"
	"licensed/test/chaos/network"
)

// place is a member's port in the network.
type place struct {
	name string
	role Role
	port *network.Port
}

// linkKinds is what can happen between two members, and to all links of one.
func linkKinds(n *network.Network, places []place, ttl time.Duration) []fault.Kind {
	l := &links{network: n, places: places, ttl: ttl}
	slow := func(r *rand.Rand) (network.Link, string) {
		d := []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond, ttl / 2}[r.IntN(4)]
		return network.Link{Delay: d / 2, Jitter: d}, "about " + d.String()
	}
	lossy := func(r *rand.Rand) (network.Link, string) {
		p := []int{1, 5, 20, 50}[r.IntN(4)]
		return network.Link{Loss: float64(p) / 100}, fmt.Sprintf("%d %%", p)
	}
	cut := func(*rand.Rand) (network.Link, string) { return network.Link{Cut: true}, "" }
	return []fault.Kind{
		l.between("cut", 3, false, cut), l.between("cut one way", 3, true, cut),
		l.between("delay", 2, false, slow), l.between("loss", 2, false, lossy),
		l.isolate("isolate", 2, cut), l.isolate("slow network", 1, slow),
	}
}

type links struct {
	network *network.Network
	places  []place
	ttl     time.Duration
}

// choose draws a link.
type choose func(*rand.Rand) (network.Link, string)

// hold lasts from one TTL to ten: short enough to be outlived, and long enough for a take-over.
func (l *links) hold(r *rand.Rand) time.Duration {
	return time.Duration([]int64{1, 2, 3, 3, 5, 10}[r.IntN(6)]) * l.ttl
}

// between makes a fault of the link between two members.
func (l *links) between(name string, weight int, oneWay bool, draw choose) fault.Kind {
	return fault.Kind{Name: name, Weight: weight, Make: func(r *rand.Rand) *fault.Fault {
		i := r.IntN(len(l.places))
		j := r.IntN(len(l.places) - 1)
		if j >= i {
			j++
		}
		a, b := l.places[i], l.places[j]
		link, detail := draw(r)
		f := &fault.Fault{Kind: name, Detail: detail, Targets: []string{a.name + ">" + b.name}, Hold: l.hold(r)}
		if !oneWay {
			f.Targets = append(f.Targets, b.name+">"+a.name)
		}
		directions := [][2]place{{a, b}}
		if !oneWay {
			directions = append(directions, [2]place{b, a})
		}
		l.impair(f, link, directions)
		return f
	}}
}

// impair makes a fault of links that are no good.
func (l *links) impair(f *fault.Fault, link network.Link, directions [][2]place) {
	var met uint64
	f.Inject = func(context.Context) error {
		for _, d := range directions {
			l.network.Set(d[0].port, d[1].port, link)
		}
		return nil
	}
	f.Heal = func(context.Context) error {
		for _, d := range directions {
			met += l.network.Set(d[0].port, d[1].port, network.Link{})
		}
		return nil
	}
	f.Came = func() fault.Effect {
		return fault.Effect{Text: fmt.Sprintf("dropped or delayed %d packets", met), Idle: met == 0}
	}
}

// isolate makes a fault of all links between one member and the others.
func (l *links) isolate(name string, weight int, draw choose) fault.Kind {
	return fault.Kind{Name: name, Weight: weight, Make: func(r *rand.Rand) *fault.Fault {
		i := r.IntN(len(l.places))
		a := l.places[i]
		link, detail := draw(r)
		f := &fault.Fault{Kind: name, Detail: detail, Hold: l.hold(r)}
		f.Targets = []string{a.name}
		var directions [][2]place
		for j, b := range l.places {
			if j != i {
				directions = append(directions, [2]place{a, b}, [2]place{b, a})
				f.Also = append(f.Also, a.name+">"+b.name, b.name+">"+a.name)
			}
		}
		l.impair(f, link, directions)
		return f
	}}
}
