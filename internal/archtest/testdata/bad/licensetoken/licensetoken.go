package licensetoken

import (
	"licensed/client" // want "verifying a licence needs nothing of the service"
)
