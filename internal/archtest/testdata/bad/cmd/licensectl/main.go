package main

import (
	"licensed/internal/node" // want "licensectl is a client of the API"
	"licensed/messages/licensedv1"
)
