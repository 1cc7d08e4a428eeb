package dashboard

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// customersPage is the number of ids a page lists.
const customersPage = 100

// What a search by the beginning of an id looks at: that many ids in that time. The store has no order of ids.
const (
	searchedIDs = 50_000
	searchTime  = 2 * time.Second
)

// customersView is the page of customers.
type customersView struct {
	IDs   []string
	After string
	// Prefix is the beginning of the ids that are listed, and Looked the number of ids that were looked at.
	Prefix string
	Looked uint64
	// Next is the last id of a full page; there may be more.
	Next string
}

// customers lists customers, opens the one of an id, or searches those whose ids begin with it.
func (d *Dashboard) customers(w http.ResponseWriter, r *http.Request) error {
	after := r.FormValue("after")
	// What is pasted often has blanks around it.
	if id := strings.TrimSpace(r.FormValue("id")); id != "" {
		if after == "" {
			_, err := d.head(r.Context(), id)
			if err == nil || connect.CodeOf(err) != connect.CodeNotFound {
				http.Redirect(w, r, customerPath(id), http.StatusSeeOther)
				return nil
			}
		}
		v, err := d.beginning(r.Context(), id, after)
		if err != nil {
			return err
		}
		status := http.StatusOK
		if len(v.IDs) == 0 {
			status = http.StatusNotFound
		}
		return d.render(w, status, "customers", "", view{Title: "Customers", Section: "customers", Body: v})
	}
	res, err := d.config.Admin.ListCustomers(r.Context(),
		connect.NewRequest(&licensedv1.ListCustomersRequest{After: after, PageSize: customersPage}))
	if err != nil {
		return err
	}
	v := customersView{IDs: res.Msg.CustomerIds, After: after}
	if n := len(v.IDs); res.Msg.NextPageToken != "" {
		// The last id and not the API's token: people keep such addresses, and read them.
		v.Next = v.IDs[n-1]
	}
	return d.render(w, http.StatusOK, "customers", "", view{Title: "Customers", Section: "customers", Body: v})
}

// beginning searches the customers whose ids begin with a prefix, from after an id on.
func (d *Dashboard) beginning(ctx context.Context, prefix, after string) (v customersView, err error) {
	v = customersView{Prefix: prefix, After: after}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	request := &licensedv1.ListCustomersRequest{After: after, PageSize: 1_000}
	for {
		res, err := d.config.Admin.ListCustomers(ctx, connect.NewRequest(request))
		if err != nil && ctx.Err() != nil && v.Looked > 0 {
			return v, nil // The time has ended: what was found is shown, and the search can go on.
		}
		if err != nil {
			return v, err
		}
		for _, id := range res.Msg.CustomerIds {
			v.Looked++
			if strings.HasPrefix(id, prefix) {
				v.IDs = append(v.IDs, id)
			}
			if v.Next = id; len(v.IDs) == customersPage || v.Looked == searchedIDs {
				return v, nil
			}
		}
		if res.Msg.NextPageToken == "" {
			v.Next = ""
			return v, nil
		}
		request = &licensedv1.ListCustomersRequest{PageSize: 1_000, PageToken: res.Msg.NextPageToken}
	}
}

// customerPath returns the address of a customer's page, now.
func customerPath(id string) string { return Path + "customer?id=" + url.QueryEscape(id) }
