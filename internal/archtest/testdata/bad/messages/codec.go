package messages

import (
	"licensed/actors" // want "messages know nothing"
	"licensed/messages/licensedv1"
)
