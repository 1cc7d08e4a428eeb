// Package messages is the vocabulary that the license aggregate, the gateway and the tools share.
//
// Package licensedv1 below it is generated from proto/licensed/v1: the API, the commands, and the
// stored forms of events and snapshots. This package ties stored events to those types. A stored row
// names its event mapper, "LicenseAcquired/1": a type and the version of its stored form. Rows are
// written with the newest version of each type and read from any version ever released, as the
// message of today; that is how events change without a migration.
package messages
