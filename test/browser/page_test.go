package browser_test

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

//go:embed axe/axe.min.js
var axe string

// patience is the time a test waits for what must come; only a test that fails takes that long.
const patience = 60 * time.Second

// screenshots is where pictures are kept.
var screenshots = filepath.Join("..", "..", "bin", "screenshots")

// chromium is one browser for all tests.
var chromium = sync.OnceValues(func() (context.Context, error) {
	program := os.Getenv("CHROMIUM")
	if program == "" {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if path, err := exec.LookPath(name); err == nil {
				program = path
				break
			}
		}
	}
	if program == "" {
		return nil, fmt.Errorf("there is no Chromium: make test installs it on Debian (apt-get install chromium), " +
			"CHROMIUM names another program")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("no-sandbox", os.Getuid() == 0),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(patience))
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	return ctx, chromedp.Do(ctx)
})

// Sizes of screens.
type screen struct {
	name          string
	width, height int64
	mobile        bool
}

var (
	wall  = screen{"wall", 1600, 1000, false}
	phone = screen{"phone", 390, 844, true}
)

// tab is a page in the browser.
type tab struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	allowed  []string
}

// open opens a page; at the test's end nothing may have gone wrong on it.
func open(t *testing.T, url string, s screen) *tab {
	t.Helper()
	browser, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(browser)
	p := &tab{T: t, ctx: ctx}
	heard := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-heard
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser's console: %s", problem)
		}
	})
	messages := chromedp.Console(ctx)
	go func() {
		defer close(heard)
		for m, err := range messages {
			if err != nil {
				return
			}
			p.hear(m)
		}
	}()
	p.emulate(s, "light")
	p.run(chromedp.Navigate(url))
	return p
}

// hear notes what a page complains of.
func (p *tab) hear(m chromedp.ConsoleMessage) {
	if !m.IsException() && m.Type != "error" && m.Type != "warning" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, words := range p.allowed {
		if strings.Contains(m.String(), words) {
			return
		}
	}
	p.problems = append(p.problems, m.String()+" "+m.URL)
}

// allow expects complaints with these words.
func (p *tab) allow(words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = append(p.allowed, words)
}

// bounded returns the tab's context for one action.
func (p *tab) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.ctx, patience)
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := p.bounded()
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.Fatal(err)
	}
}

func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.Helper()
	ctx, cancel := p.bounded()
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.Fatal(err)
	}
	return result
}

func (p *tab) emulate(s screen, theme string) {
	p.Helper()
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.mobile,
	})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// wait waits until an expression is true. A page that is being loaded has no answer yet.
func (p *tab) wait(expression string) {
	p.Helper()
	for end := time.Now().Add(patience); ; {
		ctx, cancel := p.bounded()
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		cancel()
		if ok {
			return
		}
		if time.Now().After(end) || p.ctx.Err() != nil {
			p.picture("failed-" + strings.ReplaceAll(p.Name(), "/", "-"))
			p.Fatalf("wait for %s: %v\nthe page says:\n%s", expression, err, p.text("main"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// says waits until an element's text contains words.
func (p *tab) says(selector, words string) {
	p.Helper()
	p.wait(fmt.Sprintf("document.querySelector(%q)?.textContent.replace(/\\s+/g, ' ').includes(%q)", selector, words))
}

// text returns that of an element.
func (p *tab) text(selector string) string {
	p.Helper()
	return p.eval(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// eval returns the value of an expression.
func (p *tab) eval(expression string) string {
	p.Helper()
	ctx, cancel := p.bounded()
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	return s
}

// click clicks on an element, once it is present.
func (p *tab) click(selector string) {
	p.Helper()
	p.wait(fmt.Sprintf("document.querySelector(%q)", selector))
	p.run(chromedp.Click(chromedp.CSS(selector)))
}

// press presses keys on an element.
func (p *tab) press(selector, keys string) {
	p.Helper()
	p.run(chromedp.Focus(chromedp.CSS(selector)), chromedp.KeyEvent(keys))
}

// picture takes a screenshot of the whole page.
func (p *tab) picture(name string) {
	p.Helper()
	p.eval("(scrollTo(0, 0), 1)")
	size := call(p, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	beyond := true
	shot := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond,
		Clip:                  &page.Viewport{Width: size.Width, Height: min(size.Height, 5000), Scale: 1},
	})
	if err := os.MkdirAll(screenshots, 0o755); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screenshots, name+".png"), shot.Data, 0o644); err != nil {
		p.Fatal(err)
	}
}

// look takes pictures at both sizes in both themes; at each, axe-core must have nothing to say and the
// page must not be wider than the screen.
func (p *tab) look(name string) {
	p.Helper()
	for _, s := range []screen{wall, phone} {
		for _, theme := range []string{"light", "dark"} {
			p.become(s, theme)
			p.picture(name + "-" + s.name + "-" + theme)
			p.accessible(name + " on the " + s.name + ", " + theme)
			if over := p.eval(
				"Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)",
			); over != "0" {
				p.Errorf("%s on the %s: the page is %s pixels wider than the screen: %s",
					name, s.name, over, p.widest())
			}
		}
	}
	p.become(wall, "light")
}

// become emulates a screen, and waits until the page is laid out for it.
func (p *tab) become(s screen, theme string) {
	p.Helper()
	p.emulate(s, theme)
	p.wait(fmt.Sprintf("matchMedia('(prefers-color-scheme: %s)').matches && innerWidth === %d", theme, s.width))
}

// widest names what sticks out to the right.
func (p *tab) widest() string {
	return p.eval(
		`[...document.querySelectorAll("main *, header *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 6).map(e => e.tagName + "." + e.className).join(", ")`,
	)
}

// violation is what axe-core finds.
type violation struct {
	ID    string `json:"id"`
	Help  string `json:"help"`
	Nodes []struct {
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"`
	} `json:"nodes"`
}

// accessible runs axe-core.
func (p *tab) accessible(where string) {
	p.Helper()
	ctx, cancel := p.bounded()
	defer cancel()
	if p.eval("typeof axe") == "undefined" {
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](axe)); err != nil {
			p.Fatal(err)
		}
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]violation](
		`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations)`, chromedp.EvalAwaitPromise))
	if err != nil {
		p.Fatal(err)
	}
	for _, v := range found {
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			p.Errorf("%s: axe-core, %s: %s\n%.300s\n%s", where, v.ID, v.Help, n.HTML, n.Summary)
		}
	}
}

// navigate goes to another page.
func navigate(url string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(url) }
