package license

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// licences returns this many licences in their order, some on each device.
func licences(n int) (all []*licensedv1.License) {
	for i := range n {
		all = append(all, &licensedv1.License{DeviceId: fmt.Sprintf("d%02d", i/3), TitleId: fmt.Sprintf("t%02d", i%3)})
	}
	return all
}

// TestPages: the pages of a list are the list, whatever their size, and a page is its own page.
func TestPages(t *testing.T) {
	all := licences(20)
	for size := range uint32(25) {
		var got []*licensedv1.License
		q := &licensedv1.ListLicenses{PageSize: size}
		for pages := 0; ; pages++ {
			if pages > 20 {
				t.Fatalf("size %d: pages without end", size)
			}
			res := &licensedv1.ListLicensesResponse{Licenses: slices.Clone(all)}
			if err := PageLicenses(res, q); err != nil {
				t.Fatal(err)
			}
			again := proto.CloneOf(res)
			if err := PageLicenses(again, q); err != nil || !proto.Equal(again, res) {
				t.Errorf("size %d: page of a page %v, %v", size, again, err)
			}
			if size > 0 && len(res.Licenses) > int(size) {
				t.Errorf("size %d: %d entries", size, len(res.Licenses))
			}
			got = append(got, res.Licenses...)
			if q.PageToken = res.NextPageToken; q.PageToken == "" {
				break
			}
		}
		if !slices.EqualFunc(got, all, func(a, b *licensedv1.License) bool { return proto.Equal(a, b) }) {
			t.Errorf("size %d: %d of %d entries", size, len(got), len(all))
		}
	}
}

// TestPageOfChangedList: entries that come and go between two pages change nothing about the others.
func TestPageOfChangedList(t *testing.T) {
	all := licences(9)
	first := &licensedv1.ListLicensesResponse{Licenses: slices.Clone(all)}
	if err := PageLicenses(first, &licensedv1.ListLicenses{PageSize: 4}); err != nil {
		t.Fatal(err)
	}
	changed := slices.Delete(slices.Clone(all), 2, 5) // the last of the first page, and one behind it
	second := &licensedv1.ListLicensesResponse{Licenses: changed}
	if err := PageLicenses(second, &licensedv1.ListLicenses{PageSize: 4, PageToken: first.NextPageToken}); err != nil {
		t.Fatal(err)
	}
	if len(second.Licenses) != 4 || !proto.Equal(second.Licenses[0], all[5]) || second.NextPageToken != "" {
		t.Errorf("second page %v", second)
	}
}

// TestDownloadsOfOneMoment stay on one page.
func TestDownloadsOfOneMoment(t *testing.T) {
	at := timestamppb.New(time.UnixMilli(1_800_000_000_000))
	d := func(device string) *licensedv1.Download { return &licensedv1.Download{DeviceId: device, At: at} }
	q := &licensedv1.ListDownloads{PageSize: 2}
	res := &licensedv1.ListDownloadsResponse{Downloads: []*licensedv1.Download{d("a"), d("b"), d("b"), d("b"), d("c")}}
	if err := PageDownloads(res, q); err != nil || len(res.Downloads) != 4 || res.NextPageToken == "" {
		t.Fatalf("first page %v, %v", res, err)
	}
	q.PageToken = res.NextPageToken
	res = &licensedv1.ListDownloadsResponse{Downloads: []*licensedv1.Download{d("a"), d("b"), d("b"), d("b"), d("c")}}
	if err := PageDownloads(res, q); err != nil || len(res.Downloads) != 1 || res.NextPageToken != "" {
		t.Errorf("second page %v, %v", res, err)
	}
}

func TestBadPageTokens(t *testing.T) {
	other := place{device: "a"}.token(deviceList)
	for _, token := range []string{"?", "bA", other, "bC94L2EvYg"} {
		q := &licensedv1.ListLicenses{PageToken: token}
		if err := PageLicenses(new(licensedv1.ListLicensesResponse), q); !errors.Is(err, ErrPageToken) {
			t.Errorf("token %q: %v", token, err)
		}
		if err := CheckPage(
			&licensedv1.Query{Query: &licensedv1.Query_ListLicenses{ListLicenses: q}},
		); !errors.Is(err, ErrPageToken) {
			t.Errorf("token %q: %v", token, err)
		}
	}
}
