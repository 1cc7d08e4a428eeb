package dashboard

import (
	"net/http"

	"github.com/chromedp/chromedp" // want "the browser has one home"

	"licensed/gateway" // want "dashboard is a client of the API"
	"licensed/messages/licensedv1"
)
