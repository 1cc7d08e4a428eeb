package planted

// ID is one planted bug.
type ID int

// Info says what a bug breaks and which check must notice it.
type Info struct {
	// Rule of docs/design/write-path.md, or the part of the system.
	Rule string
	// Name of the bug in [Variable] and in docs/design/reliability.md.
	Name string
	// Check is the test that must fail: its package below the root of the module, a dot, and its name.
	Check string
	// Hooks is the number of hooks the bug has, where the rule is checked more than once; 0 stands for 1.
	Hooks int
}

// Checks that many bugs have in common.
const (
	bySeeds          = "test/sim.TestSeeds"
	byProtocolSeeds  = "test/sim.TestProtocolSeeds"
	byStampSeeds     = "test/sim.TestStampSeeds"
	byOverlargeSeeds = "test/sim.TestOverlargeSeeds"
	byFactSeeds      = "test/sim.TestFactSeeds"
	byCustomers      = "actors/license.TestRandomCustomers"
	byForgetSeeds    = "test/sim.TestForgetSeeds"
	byFallback       = "gateway/fallback.TestSeeds"
	byAllowances     = "gateway/fallback.TestAllowanceSeeds"
	// the rules, against an independent reading of the history
	byRandomCustomers = "actors/license.TestRandomCustomers"
	// none of its bugs endangers the promise: nobody serves customers, or a node that nobody reaches
	byReachSeeds = "test/sim.TestReachSeeds"
)

// ByChaos is the check of bugs that no simulation executes: a run of a whole cluster, with the faults that bring the
// bug out.
const ByChaos = "test/chaos.TestMutants"

// The bugs. [Bugs] has a row for each.
const (
	CountFromReply ID = iota
	CountFromRead
	LeaseToTheEnd
	ResendRenewal
	CountFromRetry
	ResumeByRead
	TakeFromTheLiving
	BelieveGossip
	MarkStranger
	MarkWithoutPatience
	MarkWithoutAllowance
	PatienceFromBefore
	MarkAfterOutage
	UnknownDeathIsMade
	MarkWhateverCounter
	HoldBeforeClaim
	HeardIsStored
	UnknownClaimIsMade
	ForgetUnknownClaim
	TornCommand
	ServeBeforeRoot
	NoRootOfItsOwn
	TwoClocks
	AnswerUndecided
	EarlierEpochIsDecided
	EarlierActivationIsDecided
	AppendBelowInherited
	ReuseVersion
	SharePartitions
	AcknowledgeEarly
	AnswerRepeatEarly
	AnswerQueryEarly
	SkipLeaseCheck
	SayUnconfirmed
	ConfirmByPeek
	SayUncovered
	RollOverInFlight
	ReadPastBase
	ArchiveBelowBare
	AnswerHeadEarly
	RebuildWithoutCount
	VouchWhileLoaded
	TrustFirstMark
	ArchiveUnverified
	ReuseSegmentName
	ArchiveWithoutCount
	TrimBeforeMark
	UnknownArchiveMarkIsMade
	StripCurrentRoot
	TrimBeforeVerify
	StubWithoutSnapshot
	DeleteSnapshotEarly
	DeletedIsLost
	ForgetWindow
	ForgetHorizon
	TrustRoom
	AgeByEventTimes
	AgeByIssueTimes
	IgnoreStamp
	ForgottenStamp
	StampByClock
	StampAhead
	OneHorizon
	ForgetStamp
	StampAfterUnknown
	UnknownIsSuccess
	RejectionIsCertain
	RejectedRootIsCertain
	ForgetUnknownAttempt
	ReuseEpoch
	CommandsInImport
	ForgetImport
	ImportAnywhere
	AnswerImportEarly
	EndImportEarly
	CountRepeatedFact
	RestartHours
	MonthByRecording
	LetTitleRun
	RenewBeyondGrace
	ExceptionForEver
	MergeLosesUses
	MergeForgetsNumbers
	RefuseWithoutRecord
	DecideWithdrawn
	WithdrawDecided
	BelieveGossipAtGateway
	KeepHeardRow
	SpeakUntilReleased
	GoOnAfterRelease
	AdoptReleased
	LeaveReleaseUnresolved
	HoldWhileRetiring
	TombstoneLast
	ForgetWithoutEnd
	ForgetUnconfirmed
	ForgottenIsNew
	DrainOnOneVote
	CountVotesForEver
	TakeNothingAlone
	HandOverUnreached
	KeepUnreached
	StayAccused
	AnswerBeforeJournal
	SettleBeforeAnswer
	SettleUnderNewID
	SettleLastFirst
	ExecuteBeforeDeferred
	RenewWithoutEnd
	ForgetReservation
	ReturnAtExpiry
	RedeemElsewhere
	RedeemBeyondUnits
	DateFactsWhenHandedIn
	AnswerStaleAsCurrent
	AnswerStaleUnasked
	HoursAnew
	GivenUpIsNotExecuted
	AdviseOwnPlace
	RenewAnew
	ForgetLate
	AcknowledgeUnsynced
	CassandraUnknownIsSuccess
	AnswerFromCache
	SayNotExecuted
	HistoryWithoutArchive
	ForgetCommandID

	count
)

// Bugs is the table of all planted bugs, by ID.
var Bugs = [count]Info{
	CountFromReply: {
		Rule: "[R1]", Name: "count a lease from the reply of its renewal", Check: byProtocolSeeds,
	},
	CountFromRead: {
		Rule: "[R1]", Name: "count a lease from the read that showed its renewal", Check: byProtocolSeeds,
	},
	LeaseToTheEnd: {Rule: "[R1]", Name: "use a lease to the end of its TTL", Check: byProtocolSeeds},
	ResendRenewal: {
		Rule: "[R1]", Name: "resend a renewal of unknown outcome and count from there", Check: byProtocolSeeds,
	},
	CountFromRetry: {
		Rule:  "[R1]",
		Name:  "count a lease from the retry of its renewal",
		Check: "cluster/lease.TestNeverDeadWhileValid",
	},
	ResumeByRead: {
		Rule: "[R1]", Name: "take a lease that ran out for valid by a read", Check: byProtocolSeeds,
	},
	TakeFromTheLiving: {
		Rule: "[R2]", Name: "take a shard without marking its owner dead", Check: byProtocolSeeds,
	},
	BelieveGossip: {
		Rule: "[R2]", Name: "believe a gossiped death without reading the lease row", Check: byProtocolSeeds,
	},
	MarkStranger: {
		Rule: "[R2]", Name: "create a dead row for an unknown incarnation", Check: byProtocolSeeds,
	},
	MarkWithoutPatience:  {Rule: "[R2]", Name: "mark dead without patience", Check: byProtocolSeeds},
	MarkWithoutAllowance: {Rule: "[R2]", Name: "mark dead without the allowance", Check: byProtocolSeeds},
	PatienceFromBefore: {
		Rule: "[R2]", Name: "count patience from before a sign of life", Check: byProtocolSeeds,
	},
	MarkAfterOutage: {
		Rule:  "[R2]",
		Name:  "mark dead as soon as the store answers again",
		Check: "cluster/lease.TestOutageEndsNoLease",
	},
	UnknownDeathIsMade:  {Rule: "[R2]", Name: "take a mark of unknown outcome for made", Check: byProtocolSeeds},
	MarkWhateverCounter: {Rule: "[R2]", Name: "mark dead whatever the counter has become", Check: byProtocolSeeds},
	HoldBeforeClaim:     {Rule: "[R3]", Name: "hold a shard before its claim is known", Check: byProtocolSeeds},
	HeardIsStored: {
		Rule: "[R3]", Name: "take a row that was heard for the store's", Check: byProtocolSeeds,
	},
	UnknownClaimIsMade: {
		Rule: "[R3]", Name: "take a claim of unknown outcome for made", Check: byProtocolSeeds,
	},
	ForgetUnknownClaim: {Rule: "[R3]", Name: "forget a claim of unknown outcome", Check: byProtocolSeeds},
	TornCommand:        {Rule: "[R4]", Name: "torn command counts", Check: bySeeds},
	ServeBeforeRoot:    {Rule: "[R5]", Name: "serve before the root is durable", Check: bySeeds},
	NoRootOfItsOwn:     {Rule: "[R5]", Name: "activate without a root of its own", Check: bySeeds},
	TwoClocks: {
		Rule: "[R5]", Name: "tell by two clocks whether a request is late", Check: bySeeds, Hooks: 2,
	},
	AnswerUndecided:       {Rule: "[R5]", Name: "answer from what may be undecided", Check: bySeeds},
	EarlierEpochIsDecided: {Rule: "[R5]", Name: "take a root of an earlier epoch for decided", Check: bySeeds},
	EarlierActivationIsDecided: {
		Rule: "[R5]", Name: "take what an earlier activation left in progress for decided", Check: bySeeds,
	},
	AppendBelowInherited: {
		Rule:  "[R5]",
		Name:  "append below the root that was read where the next one is too large",
		Check: byOverlargeSeeds,
	},
	ReuseVersion:      {Rule: "[R6]", Name: "version of an unresolved root is used again", Check: bySeeds},
	SharePartitions:   {Rule: "[R7]", Name: "partitions are shared between epochs", Check: bySeeds},
	AcknowledgeEarly:  {Rule: "[R8]", Name: "acknowledge before durable", Check: bySeeds},
	AnswerRepeatEarly: {Rule: "[R8]", Name: "answer a repeat before its first is durable", Check: bySeeds},
	AnswerQueryEarly:  {Rule: "[R8]", Name: "answer a query from the optimistic state", Check: bySeeds},
	SkipLeaseCheck:    {Rule: "[R9]", Name: "skip the lease check", Check: bySeeds},
	SayUnconfirmed:    {Rule: "[R9]", Name: "say what was not confirmed", Check: byProtocolSeeds},
	ConfirmByPeek: {
		Rule: "[R9]", Name: "confirm by a plain read", Check: "cluster/lease.TestNeverConfirmedOnceDead",
	},
	SayUncovered: {
		Rule: "[R9]", Name: "say what a read in progress does not cover", Check: "cluster/lease.TestConfirmer",
	},
	RollOverInFlight: {Rule: "[R10]", Name: "roll over with a mutation in flight", Check: bySeeds},
	ReadPastBase:     {Rule: "[R11]", Name: "history takes records past a base", Check: bySeeds},
	ArchiveBelowBare: {
		Rule:  "[R11]",
		Name:  "archive what a root without snapshot needs",
		Check: "persistence/archive.TestBareRootKeepsWhatItNeeds",
	},
	AnswerHeadEarly: {Rule: "[R11]", Name: "archive below a head that is not durable", Check: bySeeds},
	RebuildWithoutCount: {
		Rule: "[R11]", Name: "go back to an older root without the exact count of events", Check: bySeeds, Hooks: 3,
	},
	VouchWhileLoaded: {
		Rule:  "[R11]",
		Name:  "vouch for a head without looking whether the customer was loaded meanwhile",
		Check: bySeeds,
	},
	TrustFirstMark:           {Rule: "[R12]", Name: "reader does not look at the mark again", Check: bySeeds},
	ArchiveUnverified:        {Rule: "[R12]", Name: "archive without reading back", Check: bySeeds},
	ReuseSegmentName:         {Rule: "[R12]", Name: "archive under a name used before", Check: bySeeds},
	ArchiveWithoutCount:      {Rule: "[R12]", Name: "archive without the exact count", Check: bySeeds},
	TrimBeforeMark:           {Rule: "[R12]", Name: "trim before the mark", Check: bySeeds},
	UnknownArchiveMarkIsMade: {Rule: "[R12]", Name: "take an unknown mark for made", Check: bySeeds},
	StripCurrentRoot:         {Rule: "[R12]", Name: "strip the current root", Check: bySeeds},
	TrimBeforeVerify:         {Rule: "[R12]", Name: "trim before verify", Check: bySeeds},
	StubWithoutSnapshot: {
		Rule: "[R12]", Name: "leave a stub whose snapshot is not known to be kept", Check: bySeeds,
	},
	DeleteSnapshotEarly: {
		Rule: "[R12]", Name: "delete a stub's snapshot before the new root is durable", Check: bySeeds,
	},
	DeletedIsLost: {
		Rule:  "[R12]",
		Name:  "take a snapshot that was deleted for a lost one",
		Check: "persistence/tiered.TestWokenMeanwhile",
	},
	ForgetWindow:  {Rule: "commands", Name: "forget the window at rollover", Check: bySeeds},
	ForgetHorizon: {Rule: "commands", Name: "forget the horizon", Check: bySeeds},
	TrustRoom: {
		Rule: "commands", Name: "take a window with room for one that has forgotten nothing", Check: bySeeds,
	},
	AgeByEventTimes: {Rule: "commands", Name: "forget by the nodes' clocks alone", Check: byStampSeeds},
	AgeByIssueTimes: {Rule: "commands", Name: "forget by issue times alone", Check: byStampSeeds},
	IgnoreStamp: {
		Rule: "commands", Name: "execute what a gateway stamped whatever is forgotten", Check: byStampSeeds,
	},
	ForgottenStamp: {
		Rule: "commands", Name: "demand a stamp that is forgotten as well", Check: byStampSeeds,
	},
	StampByClock: {Rule: "commands", Name: "refuse a stamp by the node's clock", Check: byStampSeeds},
	StampAhead: {
		Rule: "commands", Name: "refuse a stamp that is ahead of the clock", Check: byStampSeeds,
	},
	OneHorizon: {
		Rule: "commands", Name: "move the horizon of clients by what a gateway stamped", Check: byStampSeeds,
	},
	ForgetStamp: {Rule: "commands", Name: "forget who set an issue time", Check: byStampSeeds},
	StampAfterUnknown: {
		Rule:  "commands",
		Name:  "stamp again after an attempt of unknown outcome",
		Check: "cluster/routing.TestOutcomes",
	},
	UnknownIsSuccess: {Rule: "commands", Name: "take an unknown outcome for success", Check: bySeeds},
	RejectionIsCertain: {
		Rule: "commands", Name: "take a rejection after an unknown outcome for certain", Check: bySeeds,
	},
	RejectedRootIsCertain: {
		Rule: "commands", Name: "take a rejected root after an unknown outcome for certain", Check: bySeeds,
	},
	ForgetUnknownAttempt: {
		Rule:  "commands",
		Name:  "say not executed after an attempt of unknown outcome",
		Check: "cluster/routing.TestOutcomes",
	},
	ReuseEpoch:       {Rule: "epoch", Name: "use an epoch again", Check: byProtocolSeeds},
	CommandsInImport: {Rule: "import", Name: "take commands in the middle of an import", Check: bySeeds},
	ForgetImport: {
		Rule: "import", Name: "forget in a new root that a history is being imported", Check: bySeeds,
	},
	ImportAnywhere: {Rule: "import", Name: "import a stretch wherever the history ends", Check: bySeeds},
	AnswerImportEarly: {
		Rule: "import", Name: "acknowledge a stretch of an import before it is durable", Check: bySeeds,
	},
	EndImportEarly: {
		Rule: "import", Name: "report the end of an import before a root is marked", Check: bySeeds,
	},
	CountRepeatedFact: {Rule: "facts", Name: "count a repeated fact twice", Check: byFactSeeds, Hooks: 2},
	RestartHours: {
		Rule: "policy", Name: "restart the hours with the second playback", Check: byCustomers, Hooks: 2,
	},
	MonthByRecording: {
		Rule: "policy", Name: "count a late download when it is recorded",
		Check: "actors/license.TestLateDownloadsOfMonth",
	},
	LetTitleRun:      {Rule: "policy", Name: "let licences run beyond the end of their title", Check: byCustomers},
	RenewBeyondGrace: {Rule: "policy", Name: "let a renewal outlast the grace of a plan", Check: byCustomers},
	ExceptionForEver: {
		Rule: "exceptions", Name: "count an exception after its date", Check: byRandomCustomers,
	},
	MergeLosesUses: {
		Rule: "exceptions", Name: "lose the downloads and playbacks of a device that is merged",
		Check: byRandomCustomers,
	},
	MergeForgetsNumbers: {
		Rule: "exceptions", Name: "forget the numbers of the facts of a device that is merged",
		Check: "actors/license.TestFactsOfMerged",
	},
	RefuseWithoutRecord: {Rule: "outcome", Name: "refuse without a record", Check: bySeeds},
	DecideWithdrawn:     {Rule: "outcome", Name: "decide a request that was withdrawn", Check: bySeeds},
	WithdrawDecided:     {Rule: "outcome", Name: "withdraw a request that was decided", Check: bySeeds},
	BelieveGossipAtGateway: {
		Rule: "hints", Name: "believe a gossiped death at a gateway", Check: "cluster/roster.TestStates",
	},
	KeepHeardRow: {
		Rule:  "hints",
		Name:  "keep a row that was heard, whatever the store says",
		Check: "cluster/shardmap.TestReadsReplaceWhatWasHeard",
	},
	SpeakUntilReleased: {Rule: "release", Name: "speak until the release is known", Check: byProtocolSeeds},
	GoOnAfterRelease: {
		Rule: "release", Name: "continue after a release of unknown outcome", Check: byProtocolSeeds,
	},
	AdoptReleased: {
		Rule: "release", Name: "adopt a shard that was released", Check: byProtocolSeeds, Hooks: 2,
	},
	LeaveReleaseUnresolved: {
		Rule: "release", Name: "leave a release of unknown outcome unresolved", Check: byProtocolSeeds, Hooks: 2,
	},
	HoldWhileRetiring: {
		Rule:  "release",
		Name:  "hold a late claim while its own lease is given up",
		Check: "cluster/ownership.TestRetiringHoldsNothing",
	},
	TombstoneLast: {Rule: "[R13]", Name: "write the tombstone after the deletion", Check: byForgetSeeds},
	ForgetWithoutEnd: {
		Rule: "[R13]", Name: "continue an activation after its customer was forgotten", Check: byForgetSeeds,
	},
	ForgetUnconfirmed: {Rule: "[R13]", Name: "forget at a former owner", Check: byForgetSeeds},
	ForgottenIsNew:    {Rule: "[R13]", Name: "take a forgotten customer for a new one", Check: byForgetSeeds},
	DrainOnOneVote:    {Rule: "reach", Name: "drain on one vote", Check: byReachSeeds},
	CountVotesForEver: {Rule: "reach", Name: "count votes forever", Check: byReachSeeds, Hooks: 2},
	TakeNothingAlone: {
		Rule: "reach", Name: "take no shard while no other member is listed", Check: byReachSeeds, Hooks: 2,
	},
	HandOverUnreached: {Rule: "reach", Name: "hand over when nobody is reached", Check: byReachSeeds},
	KeepUnreached:     {Rule: "reach", Name: "keep shards that most cannot reach", Check: byReachSeeds},
	StayAccused:       {Rule: "reach", Name: "stay accused until the process ends", Check: byReachSeeds},
	AnswerBeforeJournal: {
		Rule: "fallback", Name: "answer a deferred command before it is in the journal", Check: byFallback,
	},
	SettleBeforeAnswer: {
		Rule: "fallback", Name: "remove a deferred command before the owner has answered", Check: byFallback,
	},
	SettleUnderNewID: {
		Rule: "fallback", Name: "hand in a deferred command under another id", Check: byFallback,
	},
	SettleLastFirst: {
		Rule: "fallback", Name: "hand in the deferred commands of a customer last first", Check: byFallback,
	},
	ExecuteBeforeDeferred: {
		Rule: "fallback", Name: "execute a command before the deferred ones of its customer",
		Check: "gateway/fallback.TestSettle",
	},
	RenewWithoutEnd: {
		Rule: "fallback", Name: "renew a licence provisionally without a limit", Check: byFallback,
	},
	RenewAnew: {
		Rule: "fallback", Name: "hand in a renewal that lapsed as another command",
		Check: "gateway/fallback.TestLongOutages",
	},
	ForgetLate: {
		Rule: "fallback", Name: "drop releases and facts that lapsed", Check: "gateway/fallback.TestLongOutages",
	},
	AnswerStaleAsCurrent: {
		Rule: "fallback", Name: "mark a stale answer as current", Check: "gateway.TestStaleAnswers",
	},
	AnswerStaleUnasked: {
		Rule: "fallback", Name: "give a stale answer to a question that does not allow it",
		Check: "gateway.TestStaleAnswers",
	},
	HoursAnew: {
		Rule: "fallback", Name: "begin the hours after the first playback anew with a provisional renewal",
		Check: "gateway.TestProvisionalHours",
	},
	GivenUpIsNotExecuted: {
		Rule:  "fallback",
		Name:  "say not executed to a caller who gave up while the command was written",
		Check: "gateway.TestCallerGaveUp",
	},
	AdviseOwnPlace: {
		Rule: "refusals", Name: "advise a device to release the licence that keeps its place", Check: byRandomCustomers,
	},
	DateFactsWhenHandedIn: {
		Rule: "fallback", Name: "date deferred facts by when they are handed in", Check: "gateway.TestDeferredFacts",
	},
	ForgetReservation: {
		Rule: "allowances", Name: "forget what is lent when counting", Check: byAllowances,
	},
	ReturnAtExpiry: {
		Rule: "allowances", Name: "free the year's count of a unit when its allowance ends", Check: byAllowances,
	},
	RedeemElsewhere: {
		Rule: "allowances", Name: "redeem an allowance of another gateway", Check: byAllowances,
	},
	RedeemBeyondUnits: {
		Rule: "allowances", Name: "redeem a title that is not in the allowance", Check: byAllowances,
	},
	AcknowledgeUnsynced:       {Rule: "stores", Name: "embedded store: tell writers before the sync", Check: ByChaos},
	CassandraUnknownIsSuccess: {Rule: "stores", Name: "Cassandra: take an unknown outcome for success", Check: ByChaos},
	AnswerFromCache:           {Rule: "gateway", Name: "gateway: answer questions from a cache", Check: ByChaos},
	SayNotExecuted:            {Rule: "gateway", Name: "gateway: say not executed where nobody knows", Check: ByChaos},
	HistoryWithoutArchive:     {Rule: "node", Name: "node: list histories without the archive", Check: ByChaos},
	ForgetCommandID:           {Rule: "transport", Name: "transport: forget the id of a command", Check: ByChaos},
}
