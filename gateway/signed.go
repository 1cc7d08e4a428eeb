package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"licensed/licensetoken"
	"licensed/messages/licensedv1"
)

// SigningKeys sign licences. Safe for concurrent use.
type SigningKeys interface {
	// Signing returns the key that signs now, and since when it does.
	Signing() (key licensetoken.SigningKey, since time.Time)
	// Accepted returns the keys whose licences are accepted now; the caller does not change the set.
	Accepted() licensetoken.KeySet
}

// KeySetPath is the path of the public keys, a JSON Web Key Set.
const KeySetPath = "/.well-known/jwks.json"

// keySetAge is the time for which caches may keep the key set. Longer: a new key must be published for longer before it
// signs.
const keySetAge = 5 * time.Minute

// offline is what every signed licence allows.
var offline = []string{licensetoken.Play, licensetoken.Release}

// signing returns an error if a command needs signing keys and there are none: before it is executed.
func (s *service) signing(needed bool) error {
	if !needed || s.config.SigningKeys != nil {
		return nil
	}
	return apiError(connect.CodeFailedPrecondition, licensedv1.ReasonNoSigningKey,
		"this gateway has no key for signed licences (--license-keys); not executed, retry without signed and "+
			"signed_license, or have an operator set a key")
}

// sign returns the licence of a command that was executed as a token; "" if none was asked for, or the command changed
// nothing because it meant an earlier licence. All that it says was recorded, so that a repeat of the command gets the
// same claims.
func (s *service) sign(wanted bool, h header, res result) (string, error) {
	if !wanted || h.GetValidateOnly() || res.Superseded {
		return "", nil
	}
	l := res.License
	key, _ := s.config.SigningKeys.Signing()
	token, err := licensetoken.Sign(s.config.LicenseIssuer, licensetoken.License{
		CustomerID: h.GetCustomerId(), DeviceID: l.DeviceId, TitleID: l.TitleId,
		AcquiredAt: l.AcquiredAt.AsTime(), IssuedAt: s.issuedAt(h, res), ExpiresAt: l.ExpiresAt.AsTime(),
		PlayHours: l.GetPlayHours(), Offline: offline,
	}, key)
	if err != nil {
		s.config.Logger.Error("licence not signed", "customer", h.GetCustomerId(), "key", key.ID, "error", err)
		return "", apiError(connect.CodeInternal, licensedv1.ReasonOutcomeUnknown,
			"executed, but the licence was not signed; retry with the same command_id")
	}
	s.metrics.signed.Inc()
	return token, nil
}

// issuedAt returns the time of a token. A device counts the hours of a licence from its first playback since that time,
// so it is the time of the acquisition unless a renewal begins the hours anew.
func (s *service) issuedAt(h header, res result) time.Time {
	if res.License.GetPlayHours() == 0 {
		return res.at
	}
	if _, renewal := h.(*licensedv1.RenewLicenseRequest); renewal && s.config.RenewAfterPlay != nil &&
		s.config.RenewAfterPlay() {
		return res.at
	}
	return res.License.AcquiredAt.AsTime()
}

// shown checks the signed licence that a command names, if any: by whom it was signed, and for whom. It may have
// expired. The acquisition that the command means is AcquiredAt of the result, which is nil without a licence.
func (s *service) shown(m interface {
	header
	titled
}, token string) (*licensetoken.License, error) {
	if token == "" {
		return nil, nil
	}
	if err := s.signing(true); err != nil {
		return nil, err
	}
	l, err := licensetoken.Verify(token, s.config.LicenseIssuer, s.config.SigningKeys.Accepted())
	switch {
	case errors.Is(err, licensetoken.ErrUnknownKey):
		return nil, s.wrongLicense("unknown_key",
			"is signed with a key that is not accepted; retry with acquired_at in place of it")
	case errors.Is(err, licensetoken.ErrSignature):
		return nil, s.wrongLicense("signature", "was altered: its signature is wrong")
	case err != nil:
		return nil, s.wrongLicense("malformed", "is "+err.Error())
	}
	switch {
	case l.CustomerID != m.GetCustomerId():
		return nil, s.wrongLicense("other_customer", "is of another customer")
	case l.DeviceID != m.GetDeviceId():
		return nil, s.wrongLicense("other_device", "is of another device")
	case l.TitleID != m.GetTitleId():
		return nil, s.wrongLicense("other_title", "is of another title")
	}
	return l, nil
}

// wrongLicense is the error for a command that shows a signed licence which is not accepted. It does not say what is in
// the licence.
func (s *service) wrongLicense(fault, description string) error {
	s.metrics.badSigned.WithLabelValues(fault).Inc()
	var v violations
	v.add("signed_license", description)
	return infoError(connect.CodeInvalidArgument, licensedv1.ReasonSignedLicense,
		"signed_license "+description+"; not executed", map[string]string{"fault": fault},
		&errdetails.BadRequest{FieldViolations: v})
}

// keySet serves the public keys.
func (g *Gateway) keySet(w http.ResponseWriter, r *http.Request) {
	set := g.config.SigningKeys.Accepted().JWKS()
	sum := sha256.Sum256(set)
	h := w.Header()
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(keySetAge.Seconds())))
	h.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	h.Set("Access-Control-Allow-Origin", "*") // Public, and the same for everyone.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(set))
}

// signingMetrics are about signed licences. Without keys they are 0.
func (g *Gateway) signingMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_signing_keys",
			Help: "Keys whose signed licences are accepted, including those that sign later; 0 without any.",
		}, func() float64 {
			if g.config.SigningKeys == nil {
				return 0
			}
			return float64(len(g.config.SigningKeys.Accepted()))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "licensed_gateway_signing_key_age_seconds",
			Help: "Age of the key that signs licences, since it began to sign, in seconds; 0 without signed licences.",
		}, func() float64 {
			if g.config.SigningKeys == nil {
				return 0
			}
			_, since := g.config.SigningKeys.Signing()
			return max(0, g.config.Now().Sub(since).Seconds())
		}),
	}
}
