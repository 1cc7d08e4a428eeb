package browser_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
)

// A laptop's screen; lists must fit it.
var laptop = screen{"laptop", 1280, 800, false}

// visible is an expression that tells whether an element lies within the window.
func visible(selector string) string {
	return fmt.Sprintf(`(() => { const e = document.querySelector(%q); if (!e) return false; const r = e.getBoundingClientRect(); `+
		`return r.top >= 0 && r.bottom <= innerHeight + 1 && r.width > 0; })()`, selector)
}

// TestRefused answers "why was my download refused?": the page opens on it, and one click tells the rest.
func TestRefused(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), laptop)

	// Without a click: how many, the newest first, and what can be read out of the latest.
	p.says("#refusals-title", "Refused 3")
	p.says(".refused-list li", "Download of GlowS01E01 on laptop")
	p.says("#refused-title", "The latest refusal: Download of GlowS01E01 on laptop")
	p.says("#spoken", "Download of GlowS01E01 on laptop was not possible on")
	p.says("#spoken", "2 devices have downloads, and the plan allows 2. To make it possible at once: remove")
	p.says(".refused tbody", "device limit")
	p.says(".refused .verdict", "It would still be refused now")
	p.says(".effects", "For the device limit: remove")

	// One click on another.
	p.click("[data-refused][data-at='15']")
	p.says("#refused-title", "Refused: Download of GlowS01E01 on tv")
	p.wait(visible("#spoken"))
	p.wait(visible(".refused-list .chosen"))
	p.wait(visible(".events .chosen"))
	p.look("refused")
	p.become(laptop, "light")

	// What it leads to: the sentence for the customer, the same command now, and the explanation.
	p.click("[data-copy]")
	p.says("#copied", "Copied.")
	p.click(".refused [data-try]")
	p.says("#try .verdict", "Acquire GlowS01E01 on tv: It would be refused, by the device limit rule")
	p.wait("location.search.includes('try=acquire') && !location.search.includes('at=')")
	p.run(navigate(s.url("customer?id=Bayley&at=15")))
	p.click(".refused .why-link")
	p.says("#why", "Why tv/GlowS01E01 is as it is now")
	p.wait(visible("#why-title"))

	// By rule.
	p.run(navigate(s.url("customer?id=Bayley&rule=yearly+limit")))
	p.says("#refusals-title", "Refused 3")
	p.says(".refused-list", "None by this rule.")
}

// TestRefusalFreed: once a device was removed, the same command is told to be possible.
func TestRefusalFreed(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	s.release("Bayley", "ipad", "GlowS01E01")
	p := open(t, s.url("customer?id=Bayley&at=15"), laptop)
	p.says(".refused .verdict", "The same command would be accepted now.")
	p.says("#spoken", "It is possible now.")
	p.look("refused-freed")
}

// TestChosenIsSeen: whichever event is chosen, its row lies within the window, without scrolling the page.
func TestChosenIsSeen(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	for range 60 {
		s.play("Bayley", "iphone", "GlowS01E01")
	}
	p := open(t, s.url("customer?id=Bayley"), laptop)
	for _, at := range []int{78, 60, 40, 20, 8, 1} {
		p.run(navigate(s.url(fmt.Sprint("customer?id=Bayley&at=", at))))
		p.says(".where", fmt.Sprint("After event ", at))
		p.wait("!document.getElementById('slider').disabled")
		p.wait(visible(".events .chosen > a") + " || " + visible(".events .chosen .here"))
		if p.eval("scrollY") != "0" {
			t.Errorf("at %d the page is scrolled", at)
		}
	}
	if h := p.eval("document.documentElement.scrollHeight"); h != "800" {
		t.Errorf("the page is %s pixels high", h)
	}
}

// TestGoTo finds a moment by the id of a command and by a time of the viewer.
func TestGoTo(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), laptop)
	command := s.commandOf("Bayley", 13)
	p.eval(fmt.Sprintf("(document.querySelector('[name=what]').value = ' %s ', 1)", command))
	p.click(".find-moment button")
	p.says(".where", "After event 13 of 18")
	p.eval("(document.querySelector('[name=what]').value = '9', 1)")
	p.click(".find-moment button")
	p.says(".where", "After event 9 of 18")
	p.eval(`(document.querySelector('[name=time]').value = "2999-01-01T00:00:00", 1)`)
	p.click(".find-moment button")
	p.says(".where", "After event 18 of 18")
	p.allow("404")
	p.run(navigate(s.url("customer/find?id=Bayley&what=nothing")))
	p.says("h1", "No such command")
	p.run(navigate(s.url("customer/find?id=Bayley&time=2001-01-01T00:00")))
	p.says("h1", "Before the first event")
}

// commandOf returns the id of the command of an event.
func (s *service) commandOf(customer string, sequence int) string {
	s.Helper()
	var events []struct {
		CommandID string `json:"commandId"`
	}
	if err := json.Unmarshal([]byte(get(s.T, s.url("customer/events.json?id="+customer))), &events); err != nil {
		s.Fatal(err)
	}
	return events[sequence-1].CommandID
}

// TestZone: times are those of the viewer's zone, and UTC is told on hover; also in what comes later.
func TestZone(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customers"), laptop)
	call(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kolkata"})
	check := func() {
		t.Helper()
		p.wait("document.querySelectorAll('time').length > 5 && " +
			"[...document.querySelectorAll('time')].every(e => e.title.endsWith('UTC'))")
		shown := p.eval("document.querySelector('.events time').textContent")
		utc := p.eval("document.querySelector('.events time').title")
		a, err := time.Parse(time.DateTime, shown)
		b, other := time.Parse(time.DateTime+" MST", utc)
		if err != nil || other != nil || a.Sub(b) != 5*time.Hour+30*time.Minute {
			t.Errorf("shown %q, UTC %q: %v, %v", shown, utc, err, other)
		}
	}
	p.run(navigate(s.url("customer?id=Bayley")))
	p.wait("document.getElementById('zone').textContent.includes('Asia/')")
	check()
	s.play("Bayley", "iphone", "GlowS01E01")
	p.says(".where", "of 19")
	check()
	p.eval("(document.querySelector('[name=time]').value = '2001-01-01T05:30:00', 1)")
	p.allow("404")
	p.click(".find-moment button")
	p.wait("location.search.includes('time=2001-01-01T00%3A00%3A00')")
}

// TestHidden: characters without a glyph are shown by their numbers, and forms still send the id.
func TestHidden(t *testing.T) {
	s := start(t, nil)
	const strange = "Bay\u202eley\u200b"
	s.acquire(strange, "ip\u200bhone", "GlowS01E01")
	p := open(t, s.url("customers"), laptop)
	p.click(".ids a")
	p.says("h1", `Bay\u202eley\u200b`)
	p.says("#moment", `ip\u200bhone`)
	if text := p.text("main"); strings.ContainsAny(text, "\u202e\u200b") {
		t.Errorf("%q", text)
	}
	p.click(".filter button")
	p.wait("document.querySelectorAll('.events > .command').length === 1")
	p.says("h1", `Bay\u202eley`)
}

// TestWeight: a page with all that it loads is at most 200 kB.
func TestWeight(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customers"), laptop)
	call(p, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: true})
	for _, page := range []string{"", "customer?id=Bayley", "devices?id=Bayley", "runbook"} {
		p.run(navigate(s.url(page)))
		p.wait("document.readyState === 'complete' && " +
			"document.getElementById('zone').textContent.includes('Times are in')")
		weight := p.eval("['navigation', 'resource'].flatMap(t => performance.getEntriesByType(t))" +
			".reduce((n, e) => n + e.encodedBodySize, 0)")
		var n float64
		if _, err := fmt.Sscan(weight, &n); err != nil || n == 0 || n > 200_000 {
			t.Errorf("%q weighs %s bytes", page, weight)
		}
		t.Logf("%q: %s bytes", page, weight)
	}
}
