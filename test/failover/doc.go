// Package failover measures what customers notice when nodes crash, hang, restart and join.
//
// # The model
//
// Three nodes, two gateways and a Cassandra run as processes of this machine. Most customers are only in memory; a
// few have a client each, which asks for the customer's licences ten times a second (more often where shards
// are handed over) and renews one now and then. A client that gets an error sends the same command again, with the
// same id, until it is answered.
//
//	the longest time without success   of a client, around an event, from the end of one answer to the end
//	                                   of the next; so it contains the client's own pause of 100 ms
//	latency                            of a request, from its first attempt to the answer
//
// Around each event the clients are divided by whose node held their customer: those it happened to, and the
// others, who should not notice.
//
// Every run ends by comparing all that was acknowledged with the histories: each command once, where it
// was said to be. A read that shows less than what its client was told before is an error at once.
//
// A saturated cluster is another load: requests without pauses for customers who take turns.
//
// The runs take minutes and want a machine of their own: make bench-failover.
package failover
