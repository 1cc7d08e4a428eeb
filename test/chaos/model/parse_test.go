package model_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/model"
)

func TestParse(t *testing.T) {
	want := model.Standard(time.Now())
	got, err := model.Parse([]byte(want.YAML()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
	for _, change := range [][2]string{
		{"yearly_counts: both", "yearly_counts: downloads"}, {"default_plan: two", "default_plan: four"},
		{"version:", "versions:"},
		{"studio: few", "studio: other"}, {"downloads: 3", "downloads: -3"},
	} {
		if _, err := model.Parse([]byte(strings.Replace(want.YAML(), change[0], change[1], 1))); err == nil {
			t.Errorf("takes %s", change[1])
		}
	}
}

func FuzzParse(f *testing.F) {
	rules := model.Standard(time.Unix(1e9, 0))
	f.Add([]byte(rules.YAML()))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = model.Parse(b) })
}
