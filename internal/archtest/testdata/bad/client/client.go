package client

import (
	"licensed/internal/tlsfiles" // want "client knows only the API"
	"licensed/messages/licensedv1"
)
