// Package chaos runs a licence service under load and faults, and judges whether it kept its promises.
//
// # The model
//
// A run has phases: warm-up without faults, which gives the baseline; faults, by a plan drawn from the
// seed; healing, when there must be progress within seconds; the end of the load; what was never answered is
// sent once more, and must be; collection of all that is recorded; the end of the deployment; the checks.
// The verdict is written last. It leaves a directory: history.jsonl.zst (what clients saw), customers.jsonl.zst
// (what is recorded), faults.jsonl, samples.jsonl, verdict.json, report.html, and the logs of all
// processes. [Recheck] judges such a directory again.
//
//	history   requests and answers, as files
//	client    one attempt of one request
//	workload  the clients and their requests
//	model     the rules, a second time
//	check     the checks
//	fault     plans
//	process, network, deploy   what runs, and what can be done to it
//	report    the page
package chaos
