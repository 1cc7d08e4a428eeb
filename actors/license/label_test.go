package license

import (
	"strings"
	"testing"

	"licensed/messages/licensedv1"
)

func TestCheckDeviceName(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "Anna's iPad": "", "Zoë's 電話": "", "<b>&\"'": "", strings.Repeat("電", 64): "",
		// Joiners are part of words and emoji.
		"👩\u200d💻 laptop": "", "می\u200cخواهم": "",
		strings.Repeat("電", 65): "has 65 characters, the limit is 64",
		"a\nb":                  "contains a control or format character",
		"a\x1b[2Jb":             "contains a control or format character",
		"a\u202eb":              "contains a control or format character",
		"a\u200bb":              "contains a control or format character",
		"a\u2028b":              "contains a control or format character",
		"\ufeffa":               "contains a control or format character",
		"a\xffb":                "is not UTF-8",
		" \u200d\u00a0":         "has no visible character",
	} {
		if got := CheckDeviceName(name); got != want {
			t.Errorf("%q %s, want %q", name, got, want)
		}
	}
	c := labelled(acquire("ipad", "x"), "a\u202eb", 0)
	if err := CheckCommand("c", false, c); err == nil || !strings.Contains(err.Error(), "device name contains") {
		t.Errorf("a command of another process with a misleading name: %v", err)
	}
}

// TestOnlySomeCommandsLabel: other commands have no fields for a label, so that one in them is another process's fault.
func TestOnlySomeCommandsLabel(t *testing.T) {
	r := newTrial(t, roomy, epoch)
	r.execute(acquire("ipad", "x"))
	for _, c := range []*licensedv1.Command{
		play("ipad", "x"), release("ipad", "x"), merge("ipad", "iphone"), deactivate("iphone"),
	} {
		if d := r.execute(labelled(c, "Anna's iPad", 0)); strings.Contains(describe(d), "DeviceLabeled") {
			t.Errorf("%v: %s", c, describe(d))
		}
	}
}

// TestWhyLabels tells names in the life of a licence, and in what met a limit.
func TestWhyLabels(t *testing.T) {
	x := NewExplainer("ipad", "x", nil)
	r := newTrial(t, somePolicies[0], epoch)
	add := func(c *licensedv1.Command) {
		for _, e := range r.execute(c).Events {
			e.Time = r.now
			x.Add(Recorded{Event: e, Sequence: uint64(len(x.steps)) + 1, CommandID: "c"})
		}
	}
	add(labelled(acquire("ipad", "x"), "Anna's iPad", licensedv1.DeviceType_DEVICE_TYPE_TABLET))
	add(labelled(renew("ipad", "x"), "", licensedv1.DeviceType_DEVICE_TYPE_TV))
	var texts []string
	for _, s := range x.Why(r.now, nil).Steps {
		texts = append(texts, s.Text)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"Device ipad is shown as Anna's iPad, a tablet.", "Device ipad is shown as Anna's iPad, a TV.",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
}
