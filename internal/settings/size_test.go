package settings

import "testing"

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "17b": 17, "512MiB": 512 << 20, "1.5 GiB": 3 << 29, "2gb": 2e9, "64KiB": 64 << 10,
		"25%": 250, "100 %": 1000, "0.1%": 1,
	} {
		var m Size
		if err := m.Set(text); err != nil || m.Of(1000) != want || m.String() != text {
			t.Errorf("%q of 1000: %d (%s), %v, want %d", text, m.Of(1000), &m, err, want)
		}
	}
	for _, text := range []string{
		"", "x", "-1", "1 MiBs", "0%", "101%", "-5%", "x%", "NaN", "Inf", "1e30", "9999999TiB", "NaN%",
	} {
		m := Size{text: "7", bytes: 7}
		if err := m.Set(text); err == nil {
			t.Errorf("%q is taken as %d", text, m.Of(1000))
		}
		if m.Of(1000) != 7 {
			t.Errorf("%q changed the value to %d", text, m.Of(1000))
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"25%", "512MiB", "1e3", "0x1p4", "+1", "1_000", "%", "İ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var m Size
		if m.Set(s) == nil && (m.Of(1<<40) < 0 || m.Of(0) < 0) {
			t.Errorf("%q is negative: %d", s, m.Of(1<<40))
		}
	})
}
