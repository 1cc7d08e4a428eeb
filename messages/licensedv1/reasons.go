// Package licensedv1 has the messages and services of the API, and the reasons of its errors.
package licensedv1

// ErrorDomain is the domain of the google.rpc.ErrorInfo that every error of the API carries.
const ErrorDomain = "licensed"

// Reasons in the google.rpc.ErrorInfo of errors: what a program needs to know beyond the code.
const (
	// ReasonInvalid: the request is malformed; the google.rpc.BadRequest beside it names the fields.
	ReasonInvalid = "INVALID_REQUEST"
	// ReasonRefused: a rule of the policy said no; the Refusal beside it tells which. Recorded.
	ReasonRefused = "REFUSED"
	// ReasonIDReused: the command id was used before, with other content.
	ReasonIDReused = "COMMAND_ID_REUSED"
	// ReasonTooOld: issued before the window of remembered commands.
	ReasonTooOld = "COMMAND_TOO_OLD"
	// ReasonOutcomeUnknown: the command was executed or was not; the same id tells.
	ReasonOutcomeUnknown = "OUTCOME_UNKNOWN"
	// ReasonNotExecuted: the command certainly left no trace.
	ReasonNotExecuted = "NOT_EXECUTED"
	// ReasonOverloaded: a queue or the gateway is full. Not executed.
	ReasonOverloaded = "OVERLOADED"
	// ReasonRateLimited: too many commands or refusals of this customer. Not executed.
	ReasonRateLimited = "RATE_LIMITED"
	// ReasonCorrupt: the customer's stored history cannot be read. Not executed.
	ReasonCorrupt = "CORRUPT_HISTORY"
	// ReasonRejected: the store does not take what would have to be written, such as a snapshot of the customer's
	// state that is too large. Not executed.
	ReasonRejected = "REJECTED_BY_STORE"
	// ReasonNoHistory: nothing ever happened to this customer.
	ReasonNoHistory = "NO_HISTORY"
	// ReasonPastEnd: the customer's history is not that long.
	ReasonPastEnd = "PAST_THE_END"
	// ReasonTooLarge: the answer is larger than one reply may be; the message says which calls return its parts.
	ReasonTooLarge = "REPLY_TOO_LARGE"
	// ReasonExpired: the archive dropped the events that the answer needs; the HistoryGap beside it
	// tells which.
	ReasonExpired = "HISTORY_EXPIRED"
	// ReasonNoSigningKey: the gateway has no key for signed licences. Not executed.
	ReasonNoSigningKey = "NO_SIGNING_KEY"
	// ReasonSignedLicense: the signed licence that the command names is not accepted; the metadata has the fault. Not
	// executed.
	ReasonSignedLicense = "SIGNED_LICENSE_INVALID"
	// ReasonForgotten: the customer was removed for good, and its id is not accepted any more. Not executed.
	ReasonForgotten = "FORGOTTEN"
	// ReasonAllowance: the signed allowance is not accepted; the metadata has the fault. Not executed.
	ReasonAllowance = "SIGNED_ALLOWANCE_INVALID"
	// ReasonOtherGateway: the allowance is that of another gateway, or the gateway has no data directory. Not executed.
	ReasonOtherGateway = "OTHER_GATEWAY"
	// ReasonImporting: the customer's history is being imported. Not executed.
	ReasonImporting = "IMPORTING"
	// ReasonOtherHistory: the customer has a history that the import does not continue. Nothing was
	// recorded, let alone overwritten.
	ReasonOtherHistory = "OTHER_HISTORY"
	// ReasonUnsupported: this node has no such part, an archive for instance; or the node that holds the
	// customer is of another release and does not know the request. Not executed.
	ReasonUnsupported = "UNSUPPORTED"
	// ReasonNoMember: the cluster has no member of that name.
	ReasonNoMember = "NO_MEMBER"
	// ReasonNoCredentials: the request has no token and no client certificate. Not executed.
	ReasonNoCredentials = "NO_CREDENTIALS"
	// ReasonBadCredentials: the token or the certificate is not accepted: unknown, forged, for another audience, not
	// valid yet, or without a role. Not executed.
	ReasonBadCredentials = "BAD_CREDENTIALS"
	// ReasonExpiredCredentials: the token or the certificate expired. Not executed.
	ReasonExpiredCredentials = "EXPIRED_CREDENTIALS"
	// ReasonTooManyAttempts: wrong credentials came from this address too often. Not executed.
	ReasonTooManyAttempts = "TOO_MANY_ATTEMPTS"
	// ReasonNotAllowed: no role of the caller may call the method. Not executed.
	ReasonNotAllowed = "NOT_ALLOWED"
	// ReasonOtherCustomer: the caller is a customer, and the request is about another one. Not executed.
	ReasonOtherCustomer = "OTHER_CUSTOMER"
	// ReasonNoReason: the caller may call the method only with a reason in the header Licensed-Reason. Not executed.
	ReasonNoReason = "REASON_REQUIRED"
	// ReasonBug: a defect of the server. Not executed, unless the message says otherwise.
	ReasonBug = "BUG"
)
