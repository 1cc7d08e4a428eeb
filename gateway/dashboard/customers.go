package dashboard

import (
	"net/http"
	"net/url"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// customersPage is the number of ids a page lists.
const customersPage = 100

// customersView is the page of customers.
type customersView struct {
	IDs   []string
	After string
	// Next is the last id of a full page; there may be more.
	Next string
}

// customers lists customers, or opens one.
func (d *Dashboard) customers(w http.ResponseWriter, r *http.Request) error {
	if id := r.FormValue("id"); id != "" {
		http.Redirect(w, r, customerPath(id), http.StatusSeeOther)
		return nil
	}
	after := r.FormValue("after")
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

// customerPath returns the address of a customer's page, now.
func customerPath(id string) string { return Path + "customer?id=" + url.QueryEscape(id) }
