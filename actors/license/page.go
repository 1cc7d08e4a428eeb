package license

import (
	"cmp"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"

	"licensed/messages/licensedv1"
)

// MaxPage is the number of entries a page of a list has at most.
const MaxPage = 1000

// ErrPageToken says that a page token is none that this service gave for that list.
var ErrPageToken = errors.New("not a page token of this list")

// The lists, as tokens name them.
const (
	licenseList  = "l"
	deviceList   = "d"
	downloadList = "w"
	customerList = "c"
)

// place is the key of an entry in a list, with the fields that the list is sorted by. A page begins behind the last
// entry of the page before, whatever happened to the list meanwhile.
type place struct {
	at            int64 // in milliseconds
	device, title string
}

// compare orders entries by time, device and title; a list leaves out what it does not
// order by.
func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.at, other.at), strings.Compare(p.device, other.device),
		strings.Compare(p.title, other.title))
}

// token returns a place in a list as a token.
func (p place) token(list string) string {
	text := strings.Join([]string{list, strconv.FormatInt(p.at, 10), p.device, p.title}, "/")
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// parsePlace returns the place of a token; nil for the empty one, before all entries.
func parsePlace(list, token string) (*place, error) {
	if token == "" {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	// A token of another list is refused, too.
	parts := strings.Split(string(text), "/") // Ids have no slashes.
	if err != nil || len(parts) != 4 || parts[0] != list {
		return nil, ErrPageToken
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return nil, ErrPageToken
	}
	return &place{at: at, device: parts[2], title: parts[3]}, nil
}

// CheckPage returns ErrPageToken if a query has a token of another list, or none at all.
func CheckPage(q *licensedv1.Query) (err error) {
	switch q := q.GetQuery().(type) {
	case *licensedv1.Query_ListLicenses:
		_, err = parsePlace(licenseList, q.ListLicenses.GetPageToken())
	case *licensedv1.Query_ListDownloads:
		_, err = parsePlace(downloadList, q.ListDownloads.GetPageToken())
	case *licensedv1.Query_ListDevices:
		_, err = parsePlace(deviceList, q.ListDevices.GetPageToken())
	case *licensedv1.Query_GetCustomer:
		_, err = parsePlace(customerList, q.GetCustomer.GetPageToken())
	}
	return err
}

// asked is the part of a query that asks for a page.
type asked interface {
	GetPageSize() uint32
	GetPageToken() string
}

// page returns the page of a sorted list that was asked for, and the token of the next one, "" if there is none.
// Without a size the page has no bound. Entries of the same key stay together, so that a page may be a little longer.
// The page of a page is that page: a gateway cuts what nodes of the first release answer, which is always the whole
// list.
func page[E any](list string, all []E, q asked, key func(E) place) (entries []E, next string, err error) {
	from, err := parsePlace(list, q.GetPageToken())
	if err != nil {
		return nil, "", err
	}
	if from != nil {
		// The first entry after the place, whether an entry is at the place or not: it
		// may be gone by now.
		begin, _ := slices.BinarySearchFunc(all, *from, func(e E, p place) int {
			if key(e).compare(p) <= 0 {
				return -1
			}
			return 1
		})
		all = all[begin:]
	}
	n := int(q.GetPageSize())
	if n == 0 {
		return all, "", nil
	}
	for n < len(all) && key(all[n]) == key(all[n-1]) {
		n++
	}
	if n >= len(all) {
		return all, "", nil
	}
	return all[:n:n], key(all[n-1]).token(list), nil
}

// PageLicenses leaves in an answer the page that the query asks for.
func PageLicenses(res *licensedv1.ListLicensesResponse, q *licensedv1.ListLicenses) error {
	entries, next, err := page(licenseList, res.Licenses, q, func(l *licensedv1.License) place {
		return place{device: l.DeviceId, title: l.TitleId}
	})
	res.Licenses, res.NextPageToken = entries, cmp.Or(next, res.NextPageToken)
	return err
}

// PageDevices leaves in an answer the page that the query asks for.
func PageDevices(res *licensedv1.ListDevicesResponse, q *licensedv1.ListDevices) error {
	entries, next, err := page(deviceList, res.Devices, q,
		func(d *licensedv1.Device) place { return place{device: d.DeviceId} })
	res.Devices, res.NextPageToken = entries, cmp.Or(next, res.NextPageToken)
	return err
}

// PageDownloads leaves in an answer the page that the query asks for.
func PageDownloads(res *licensedv1.ListDownloadsResponse, q *licensedv1.ListDownloads) error {
	entries, next, err := page(downloadList, res.Downloads, q, func(d *licensedv1.Download) place {
		return place{at: d.At.AsTime().UnixMilli(), device: d.DeviceId, title: d.TitleId}
	})
	res.Downloads, res.NextPageToken = entries, cmp.Or(next, res.NextPageToken)
	return err
}
