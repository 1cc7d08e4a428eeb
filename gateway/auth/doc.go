// Package auth decides who calls the API and what the caller may do.
//
// # The model
//
// A request comes with [Credentials]: a bearer token, a client certificate, or nothing. An [Authenticator] turns them
// into [Claims]: the subject, its roles, and for a customer its id. An [Authorizer] then decides about an [Action]: a
// method, the customer that the request is about, and the reason that the caller states. What nothing allows is denied.
//
//	credentials ──Authenticator──▶ claims ──Authorizer (claims, action)──▶ decision
//
// An authorizer is asked twice. Before the message of a request is read, it tells whether the method is open to any
// role of the caller, so that a request without rights costs no memory. After that it tells whether the customer in the
// message is one that the caller may act for. A session is authenticated once, and each of its calls is authorised.
//
// # What is built in
//
// [Verifier] is an authenticator from a file (--auth-file), which is read again when it changes: static tokens by their
// hashes, certificates by the names in them, and JSON Web Tokens of several issuers. Tokens that were verified are
// remembered until they expire. Failed attempts are limited for each source address; a static token and a remembered
// one are accepted also from an address that used up its attempts.
//
// [Table] is an authorizer from the option licensed.v1.access of each method in the .proto files.
package auth
