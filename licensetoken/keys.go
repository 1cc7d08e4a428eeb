package licensetoken

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// KeySet has public keys by their id. It is not changed after it was made.
type KeySet map[string]ed25519.PublicKey

// SigningKey is a private key with its id.
type SigningKey struct {
	ID      string
	Private ed25519.PrivateKey
}

// NewSigningKey returns a private key with its id.
func NewSigningKey(private ed25519.PrivateKey) SigningKey {
	return SigningKey{ID: KeyID(private.Public().(ed25519.PublicKey)), Private: private}
}

// Public returns the public key.
func (k SigningKey) Public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

// KeyID returns the thumbprint of a key (RFC 7638, with SHA-256).
func KeyID(key ed25519.PublicKey) string {
	// The members that the thumbprint is of, in the order of their names.
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + encoded(key) + `"}`))
	return encoded(sum[:])
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is a public key in a set (RFC 7517, RFC 8037).
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
}

type jwks struct {
	Keys []jwk `json:"keys"`
}

// JWKS returns the keys as a JSON Web Key Set, in the order of their ids.
func (s KeySet) JWKS() []byte {
	set := jwks{Keys: []jwk{}}
	for _, id := range slices.Sorted(maps.Keys(s)) {
		set.Keys = append(set.Keys,
			jwk{Type: "OKP", Curve: "Ed25519", X: encoded(s[id]), ID: id, Use: "sig", Algorithm: "EdDSA"})
	}
	b, err := json.Marshal(set)
	if err != nil {
		panic(err) // Strings can be marshalled.
	}
	return b
}

// ParseJWKS returns the keys of a JSON Web Key Set that can sign licences; others are skipped. Errors: the text is no
// set, one of the keys is damaged, or none can sign licences.
func ParseJWKS(text []byte) (KeySet, error) {
	var set jwks
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("parse a JSON Web Key Set: %w", err)
	}
	keys := make(KeySet)
	for _, k := range set.Keys {
		if k.Type != "OKP" || k.Curve != "Ed25519" || k.Use != "" && k.Use != "sig" {
			continue
		}
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("parse a JSON Web Key Set: key %q is not %d bytes in base64url",
				k.ID, ed25519.PublicKeySize)
		}
		keys[KeyID(x)] = x
	}
	if len(keys) == 0 {
		return nil, errors.New("parse a JSON Web Key Set: it has no key of Ed25519")
	}
	return keys, nil
}
