// Package e2e tests the real daemon as an operator and a client meet it: the built binary in a process
// of its own, spoken to over TCP, killed with -9 under load and started again.
//
// The check after the kills does not trust the API alone: the store of the stopped daemon is read
// with the project's own history reader, and what clients were told is compared with what is present,
// command by command.
package e2e
