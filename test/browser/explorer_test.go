package browser_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestExplorer walks through a customer's history as somebody does who wants to know why.
func TestExplorer(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), wall)

	// The end: both tiers in one list, and the state now.
	p.says(".where", "Now, after event 18 of 18")
	// A row for each command, with its events folded.
	if n := p.eval("document.querySelectorAll('.events > .command').length"); n != "10" {
		t.Errorf("%s commands are listed", n)
	}
	const numbers = "new Set([...document.querySelectorAll('.events [data-at]')].map(a => a.dataset.at))"
	if n := p.eval(numbers + ".size"); n != "18" {
		t.Errorf("%s events are listed", n)
	}
	p.says(".events .border", "in the archive")
	if n := p.eval("document.querySelectorAll('.events > li.archive').length"); n != "3" {
		t.Errorf("%s commands are marked as archived", n)
	}
	p.look("customer-now")

	// Back in time, by the slider's keys: the state of then, what the event changed, a link to it.
	p.press("#slider", kb.ArrowLeft)
	p.says(".where", "After event 17")
	p.press("#slider", strings.Repeat(kb.ArrowLeft, 3))
	p.says("#changes-title", "What event 14 changed")
	p.says(".changes", "Licence iphone/GlowS01E02: Status released, was active")
	p.says("tr.changed td.changed", "released was active")
	p.says(".events .chosen", "LicenseReleased")
	p.wait("location.search.includes('at=14')")
	p.look("customer-released")

	// A click on an event, and one on the one before it.
	p.click("li[data-last='7'] summary")
	p.click(".folded [data-at='6']")
	p.says("#changes-title", "What event 6 changed")
	p.says(".changes", "Licence iphone/GlowS01E02: new")
	p.says("tr.new th", "iphone")
	p.click("[aria-label='Event before']")
	p.says("#changes-title", "What event 5 changed")
	p.press("#slider", kb.Home)
	p.says("#changes-title", "What event 1 changed")
	p.says(".where", "After event 1 of 18")

	// Back and forth by the browser's own means.
	p.eval("(history.back(), 1)")
	p.says("#changes-title", "What event 6 changed")
}

// TestShared opens an address that somebody passed on.
func TestShared(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley&at=13&device=iphone&title=GlowS01E01&whydevice=iphone&whytitle=GlowS01E01"+
		"&try=acquire&trydevice=tv&trytitle=GlowS01E03"), wall)
	p.says(".where", "After event 13")
	p.says(".changes", "Renewals 1, was 0")
	p.wait("[...document.querySelectorAll('.events .about')].every(e => e.textContent === 'iphone/GlowS01E01' || " +
		"e.textContent === 'customer')")

	// Why it is as it is, and the result that another command would have had.
	p.says("#why", "Renewed")
	p.says("#try .verdict", "Acquire GlowS01E03 on tv: It would be refused, by the device limit rule")
	p.says("#try .verdict", "CommandRefused")
	p.click("#raw summary")
	p.says("#raw", "Bayley:LicenseAggregate:")
	p.says("#raw", "LicenseRenewed/1")
	p.says("#raw pre", "00000000")
	p.look("customer-why-try")

	// Another try, at the same moment.
	p.eval(`(document.querySelector("#try-command").value = "deactivate", document.querySelector("#try-command").dispatchEvent(new Event("change", {bubbles: true})), 1)`)
	p.wait(`document.querySelector("[name=trytitle]").disabled && !document.querySelector("[name=trydevice]").disabled`)
	p.eval(`(document.querySelector("[name=trydevice]").value = "iphone", 1)`)
	p.click("#try button")
	p.says("#try .verdict", "Remove iphone: It would be accepted, and end the licences for GlowS01E01, GlowS01E02.")
	p.wait("location.search.includes('try=deactivate') && location.search.includes('at=13')")

	// Without the filter, at the same moment.
	p.click(".filter a.quiet")
	p.wait("document.querySelectorAll('.events > .command').length === 10")
	p.says(".where", "After event 13")
}

// TestNews sees an event as it comes: at the end at once, elsewhere told.
func TestNews(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), wall)
	p.says(".where", "of 18")
	s.play("Bayley", "iphone", "GlowS01E01")
	p.says(".where", "Now, after event 19 of 19")
	p.says(".events li", "TitlePlayed")
	p.click("li[data-last='4'] summary")
	p.click(".folded [data-at='3']")
	p.says(".where", "After event 3")
	s.play("Bayley", "iphone", "GlowS01E01")
	p.says("#news", "1 new event since")
	p.says(".where", "After event 3")
	p.click("[data-step]:last-of-type")
	p.says(".where", "Now, after event 20 of 20")
}

// TestLongHistory goes to where a long history is not listed yet.
func TestLongHistory(t *testing.T) {
	s := start(t, nil)
	s.acquire("Robin", "iphone", "GlowS01E01")
	for range 400 {
		s.play("Robin", "iphone", "GlowS01E01")
	}
	p := open(t, s.url("customer?id=Robin"), wall)
	p.says(".where", "of 404")
	if n := p.eval("document.querySelectorAll('.events > .command').length"); n != "100" {
		t.Errorf("%s commands are listed", n)
	}
	p.press("#slider", kb.Home)
	p.says("#changes-title", "What event 1 changed")
	p.wait("document.querySelector('.events .chosen .here[data-at=\"1\"]')")
	p.click("#timeline a.button")
	p.wait("document.querySelector('.events .chosen [data-at=\"101\"]')")
	p.look("customer-long")
}

// TestDownload downloads a history under the names of the talk.
func TestDownload(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), phone)
	href := p.eval("document.querySelector('a[download]').href")
	res, err := http.Get(href)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var events []map[string]any
	if err := json.Unmarshal(b, &events); err != nil {
		t.Fatal(err)
	}
	if len(events) != 18 || !strings.Contains(res.Header.Get("Content-Disposition"), "Bayley.events.json") {
		t.Errorf("%d events in %s", len(events), res.Header.Get("Content-Disposition"))
	}
	for _, name := range []string{
		"Event", "Event Time", "aggregateId", "committed", "eventTimeStamp", "eventOrderNumber",
	} {
		if _, ok := events[0][name]; !ok {
			t.Errorf("no %q in %v", name, events[0])
		}
	}
}

// TestStrangers opens what is missing.
func TestStrangers(t *testing.T) {
	s := start(t, nil)
	s.acquire("Bayley", "iphone", "GlowS01E01")
	p := open(t, s.url("customers"), wall)
	p.says(".ids", "Bayley")
	p.look("customers")
	p.allow("404")
	p.allow("400")
	p.run(navigate(s.url("customer?id=Nobody")))
	p.says("h1", "No events recorded for Nobody")
	p.look("error")
	// The beginning of an id, with blanks around it, is searched; an id that is one opens it.
	p.run(navigate(s.url("customers?id=%20Bay%20")))
	p.says("h2", "Ids that begin with Bay")
	p.says(".ids", "Bayley")
	p.look("customers-prefix")
	p.run(navigate(s.url("customers?id=Bayley%20")))
	p.says(".where", "Now, after event 4 of 4")
	p.run(navigate(s.url("customers?id=Nobo")))
	p.says("h2", "No customer Nobo, and no id that begins with it")
	for page, title := range map[string]string{
		"customer?id=Bayley&at=999": "Outside the recorded history", "customer?id=Bayley&at=x": "No such moment",
		"nowhere": "No such page", "customer?id=a%2Fb": "Invalid request",
	} {
		p.run(navigate(s.url(page)))
		p.says("h1", title)
	}
	// An id may have anything in it; it is shown, and never becomes markup.
	const strange = `<img src=x onerror=alert(1)>"&'é..`
	s.acquire(strange, "ip<b>hone", "G'l\"ow")
	p.run(navigate(s.url("customers")))
	p.eval(fmt.Sprintf("(document.querySelector('#id').value = %q, 1)", strange))
	p.click(".open button")
	p.says("h1", strange)
	p.says("#moment", "ip<b>hone")
	if p.eval("document.querySelectorAll('main img').length") != "0" {
		t.Error("an id became markup")
	}
}
