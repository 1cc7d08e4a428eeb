package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/gateway/devicespage"
	"licensed/internal/node"
	"licensed/internal/throwaway"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
)

// bearer sends a token with each request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// embedding is a site that has the customers' devices page in a frame. What it hears is in window.heard.
func embedding(t *testing.T) (url string, show func(pageURL, answer string)) {
	t.Helper()
	content := ""
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, content)
	}))
	t.Cleanup(site.Close)
	return site.URL, func(pageURL, answer string) {
		content = `<!doctype html><html lang="en"><title>Account</title><link rel="icon" href="data:,"><main>
<iframe id="devices" title="Download devices" width="600" height="700" sandbox="allow-scripts allow-same-origin" onload="window.loaded = true" src="` + pageURL + `"></iframe></main>
<script>const heard = []; addEventListener("message", (e) => {
	heard.push(e.data.type);
	if (e.data.type === "licensed-devices:ready") e.source.postMessage(` + answer + `, "*");
});</script>`
	}
}

// managed starts a node with the page, for a customer with three devices of a plan of two, and returns the customer's
// token and the address of the page.
func managed(t *testing.T, origins ...string) (s *service, token, page string) {
	t.Helper()
	dir := t.TempDir()
	if err := throwaway.Tokens(dir); err != nil {
		t.Fatal(err)
	}
	read := func(role string) string {
		b, err := os.ReadFile(filepath.Join(dir, role+".token"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	s = start(t, func(c *node.Config) { c.AuthFile, c.DevicesPage = filepath.Join(dir, "auth.yaml"), origins })
	url := "http://" + s.API().String()
	s.licenses = licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: bearer(read("service"))}, url)
	for _, customer := range []string{throwaway.Customer, "Somebody"} {
		for _, d := range []*licensedv1.AcquireLicenseRequest{
			{DeviceId: "ipad-7f3a", TitleId: "GlowS01E01", DeviceName: "Anna's <i>iPad</i>",
				DeviceType: licensedv1.DeviceType_DEVICE_TYPE_TABLET},
			{DeviceId: "ipad-7f3a", TitleId: "GlowS01E02"},
			{DeviceId: "a8-77", TitleId: "DarkS01E01", DeviceType: licensedv1.DeviceType_DEVICE_TYPE_TV},
		} {
			d.CustomerId, d.CommandId = customer, s.id()
			if _, err := s.licenses.AcquireLicense(t.Context(), connect.NewRequest(d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s, read("customer"), url + devicespage.Path
}

// TestManageDevices removes a device as a customer, on a page of its own.
func TestManageDevices(t *testing.T) {
	s, token, page := managed(t, devicespage.Self)
	p := open(t, page+"#customer="+throwaway.Customer+"&token="+token, wall)
	p.says("#summary", "2 of 2 devices with downloads.")
	if at := p.eval("location.href"); at != page {
		t.Errorf("the address still is %s", at)
	}
	if kept := p.eval("localStorage.length + sessionStorage.length + document.cookie.length"); kept != "0" {
		t.Errorf("%s entries or cookies are kept", kept)
	}
	p.says("#devices li:has(details)", "Anna's <i>iPad</i>")
	p.says("#devices", "TV")
	if text := p.text("#devices"); strings.Contains(text, "a8-77") || strings.Contains(text, "ipad-7f3a") {
		t.Errorf("ids are shown though there are names: %s", text)
	}
	p.wait("document.querySelector('#meter.full')")
	p.click("#devices details summary")
	p.says("#devices details[open]", "GlowS01E02")
	p.look("manage-devices")

	p.click("[aria-label='Remove TV']")
	p.says("#consequences", "1 download ends and can no longer be played on it: DarkS01E01")
	p.says("#consequences", "Afterwards, you can download on another device.")
	p.look("manage-devices-ask")
	p.click("#keep")
	if active, err := s.devices(throwaway.Customer, "a8-77"); err != nil || !active {
		t.Errorf("it was removed without a yes: %v", err)
	}
	p.click("[aria-label='Remove TV']")
	p.wait("!document.querySelector('#remove').hidden")
	p.click("#remove")
	p.says("#status", "TV was removed.")
	p.says("#summary", "1 of 2 devices with downloads.")
	if active, err := s.devices(throwaway.Customer, "a8-77"); err != nil || active {
		t.Errorf("it is still active: %v", err)
	}
	if active, err := s.devices("Somebody", "a8-77"); err != nil || !active {
		t.Errorf("the other customer's device is removed: %v", err)
	}
}

// TestManageOthersDevices: the token of one customer shows nothing of another, and no token shows nothing.
func TestManageOthersDevices(t *testing.T) {
	_, token, page := managed(t, devicespage.Self)
	p := open(t, "about:blank", phone)
	p.allow("403")
	p.allow("401")
	p.run(navigate(page + "#customer=Somebody&token=" + token))
	p.says("#problem", "This page cannot show your devices.")
	p.look("manage-devices-problem")
	p.eval("location.hash = 'customer=Bayley&token=wrong'")
	p.says("#problem", "You have been signed out.")
	if text := p.text("main"); strings.Contains(text, "iPad") {
		t.Errorf("devices are shown: %s", text)
	}
}

// TestManageDevicesInAFrame of a site that is allowed, with a theme and names of titles; of another site, the browser
// shows nothing, and what such a site says is ignored.
func TestManageDevicesInAFrame(t *testing.T) {
	site, show := embedding(t)
	_, token, page := managed(t, site)
	answer := fmt.Sprintf(`{type: "licensed-devices:open", customer: %q, token: %q, scheme: "dark",
		titles: {GlowS01E01: "Glow, episode 1"}, theme: {accent: "rgb(1, 2, 3)", danger: "url(https://other.example)"}}`,
		throwaway.Customer, token)
	show(page, answer)
	p := open(t, site, wall)
	p.wait(`heard.includes("licensed-devices:height")`)
	p.picture("manage-devices-framed")

	other, showOther := embedding(t)
	showOther(page, answer)
	q := open(t, "about:blank", wall)
	q.allow("Framing")
	q.run(navigate(other))
	q.wait("window.loaded") // after the scripts of the frame, if it were shown
	if heard := q.eval("heard.length"); heard != "0" {
		t.Errorf("the page spoke to a site that is not allowed: %s", q.eval("heard.join()"))
	}
}

// TestManageDevicesIgnoresOthers: a page that may show the frame, but is not listed to hand over tokens, is ignored.
func TestManageDevicesIgnoresOthers(t *testing.T) {
	_, token, page := managed(t, devicespage.Self, "https://tv.example")
	p := open(t, "about:blank", wall)
	p.allow("404") // no icon
	p.run(navigate(strings.TrimSuffix(page, devicespage.Path[1:])))
	p.eval(fmt.Sprintf(`(() => {
		const frame = document.createElement("iframe");
		window.heard = [];
		addEventListener("message", (e) => {
			heard.push(e.data.type);
			frame.contentWindow.postMessage({type: "licensed-devices:open", customer: %q, token: %q}, "*");
			frame.contentWindow.postMessage("after", "*");
		});
		frame.src = %q;
		document.body.append(frame);
		frame.addEventListener("load", () => frame.contentWindow.addEventListener("message", (e) => {
			if (e.data === "after") window.answered = true;
		}));
		return 1;
	})()`, throwaway.Customer, token, page))
	p.wait(`heard.includes("licensed-devices:ready")`)
	p.eval(`(document.querySelector("iframe").contentWindow.postMessage("after", "*"), 1)`)
	p.wait("window.answered")
	inside := `document.querySelector("iframe").contentDocument`
	if text := p.eval(inside + ".querySelector('#status').textContent + " + inside +
		".querySelector('#devices').textContent"); !strings.Contains(text, "Loading") {
		t.Errorf("the page accepted the token: %s", text)
	}
	if calls := p.eval(inside + ".defaultView.performance.getEntriesByType('resource')" +
		".filter((e) => e.name.includes('LicenseService')).length"); calls != "0" {
		t.Errorf("%s calls were made with the token", calls)
	}
}
