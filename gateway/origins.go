package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"

	"licensed/gateway/auth"
)

// preflightAge is the time for which a browser remembers what an origin may do; browsers cap it at two hours.
const preflightAge = 2 * time.Hour

// CrossOrigin lets browsers call the API from pages of other origins, like https://app.example.com;
// https://*.example.com stands for all hosts below a domain, and * for every page. Credentials are not allowed:
// browsers send neither cookies nor client certificates. Without origins it returns h. The origins must be valid,
// see CheckOrigin.
func CrossOrigin(h http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return h // Package cors would allow all.
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Traceparent", "Authorization", auth.ReasonHeader),
		ExposedHeaders: append(connectcors.ExposedHeaders(), "Retry-After"),
		MaxAge:         int(preflightAge.Seconds()),
	}).Handler(h)
}

// CheckOrigin returns what is wrong with an origin.
func CheckOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.Scheme+"://"+u.Host != origin {
		return fmt.Errorf("%q is not an origin like https://app.example.com, without a path", origin)
	}
	if strings.Contains(strings.TrimPrefix(u.Host, "*."), "*") {
		return errors.New("* stands for whole names at the beginning of a host only, like https://*.example.com")
	}
	return nil
}
